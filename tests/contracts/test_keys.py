"""The shim and the processor do not import each other, so what both know is written twice: here it is compared."""

from __future__ import annotations

import pytest

from neatlogs_otel import conventions
from neatlogs_processor.core import schema


@pytest.mark.parametrize(
    ("of_the_shim", "of_the_processor"),
    [
        (conventions.END_USER_NAMESPACE, schema.NAMESPACE),
        (conventions.END_USER_ID, schema.END_USER_ID),
        (conventions.END_USER_METADATA, schema.END_USER_METADATA),
        (conventions.END_USER_SOURCE, schema.END_USER_SOURCE),
    ],
)
def test_the_keys_are_equal(of_the_shim: str, of_the_processor: bytes) -> None:
    """Each identity key is the same, byte for byte, in the shim and in the processor."""
    assert of_the_shim.encode() == of_the_processor


def test_the_keys_are_what_the_neatlogs_sdks_put_on_the_wire() -> None:
    """The keys are spelled as the published SDKs spell them, so that their traces work unchanged."""
    assert conventions.END_USER_ID == "neatlogs.end_user.id"
    assert conventions.END_USER_METADATA == "neatlogs.end_user.metadata"
    assert conventions.SESSION_ID == "neatlogs.session.id"
    assert conventions.OPERATOR_ID == "user.id"
    assert conventions.WORKFLOW_NAME == "neatlogs.workflow_name"
    assert conventions.TAGS == "neatlogs.tags"


def test_the_processor_s_source_is_one_that_the_shim_knows() -> None:
    """The source that the processor writes for a moved default is among those that the shim documents."""
    assert schema.SOURCE_RESOURCE in conventions.SOURCES
