"""Attribute keys, and how an identity becomes attribute values.

The keys are what travels on the wire; the processor reads the same ones. The functions are pure: they return the text
to put on a span or raise `RefusedError`, whose message says why and never holds the value (an end-user id is personal
data and must not reach a log).
"""

from __future__ import annotations

import base64
import json
import math
import numbers
from collections.abc import Iterable, Mapping
from typing import Any, Final
from uuid import UUID

END_USER_NAMESPACE: Final = "neatlogs.end_user"
"""The identity namespace: this key, and every key that starts with it and a dot."""

END_USER_ID: Final = "neatlogs.end_user.id"
"""On the root span: the end user's id, a string."""

END_USER_METADATA: Final = "neatlogs.end_user.metadata"
"""On the root span: a JSON object, as a string."""

END_USER_SOURCE: Final = "neatlogs.end_user.source"
"""On the root span: which call supplied the id; one of `SOURCES`."""

SOURCES: Final = ("init", "identify", "trace", "span", "set_end_user", "resource")

SESSION_ID: Final = "neatlogs.session.id"
"""On the root span: the session (a conversation, say) that the trace belongs to."""

OPERATOR_ID: Final = "user.id"
"""On the resource: the operator, who runs the process. Never an end user."""

WORKFLOW_NAME: Final = "neatlogs.workflow_name"
PROJECT: Final = "neatlogs.project"
TAGS: Final = "neatlogs.tags"
"""Comma-separated; on the resource from `init(tags=...)`, on the root span from `trace(tags=...)`."""

SPAN_KIND: Final = "neatlogs.span.kind"
"""`workflow`, `agent`, `chain`, `tool`, `llm`, ...; lower case."""

OPENINFERENCE_SPAN_KIND: Final = "openinference.span.kind"
"""The same in capitals, as OpenInference writes it."""

INPUT_VALUE: Final = "input.value"
INPUT_MIME_TYPE: Final = "input.mime_type"
OUTPUT_VALUE: Final = "output.value"
OUTPUT_MIME_TYPE: Final = "output.mime_type"
JSON_MIME_TYPE: Final = "application/json"
TEXT_MIME_TYPE: Final = "text/plain"

MAX_ID_BYTES: Final = 1024
"""UTF-8 bytes. A longer id is refused, never cut: a cut id merges two end users."""

MAX_METADATA_BYTES: Final = 16 * 1024
"""UTF-8 bytes of the encoded JSON object."""

_NAMESPACE_DOT: Final = END_USER_NAMESPACE + "."


class RefusedError(ValueError):
    """A value that cannot be used. The message says why, without the value."""


def is_identity_key(key: str) -> bool:
    """Whether an attribute key lies in the identity namespace. Compared exactly, case included."""
    return key == END_USER_NAMESPACE or key.startswith(_NAMESPACE_DOT)


def encode_id(value: object) -> str | None:
    """The text of an end-user id or a session id.

    Args:
        value: `str`, an integer or a `UUID`. `None`, empty and blank text mean "none".

    Returns:
        The text, unchanged and never cut, or `None` where there is none.

    Raises:
        RefusedError: A value of another type (`bool` and `float` among them), text that UTF-8 cannot hold, or text
            over `MAX_ID_BYTES`.
    """
    if value is None:
        return None
    if isinstance(value, str):
        # Not str(value): a str that is also an Enum would give the member's name.
        text = str.__str__(value)
    elif isinstance(value, bool):
        raise RefusedError("it is a bool")
    elif isinstance(value, numbers.Integral):
        text = _decimal(int(value))
    elif isinstance(value, UUID):
        text = str(value)
    elif isinstance(value, float) and math.isnan(value):
        raise RefusedError("it is NaN")
    else:
        raise RefusedError(f"it is a {_type_name(value)}; pass a str, an int or a UUID")
    if not text.strip():
        return None
    size = _utf8_size(text)
    if size > MAX_ID_BYTES:
        raise RefusedError(f"it has {size} bytes, more than {MAX_ID_BYTES}")
    return text


def encode_metadata(value: object) -> str | None:
    """End-user metadata as the JSON text that goes on the span: compact, keys sorted.

    Args:
        value: A mapping. Values that JSON cannot hold become `str(value)`, keys become strings. `None` and an empty
            mapping mean "none".

    Raises:
        RefusedError: Not a mapping, nested too deeply or in itself, or over `MAX_METADATA_BYTES` when encoded.
    """
    if value is None:
        return None
    if not isinstance(value, Mapping):
        raise RefusedError(f"it is a {_type_name(value)}, not a mapping")
    if not value:
        return None
    text = encode_json(value)
    size = _utf8_size(text)
    if size > MAX_METADATA_BYTES:
        raise RefusedError(f"its JSON has {size} bytes, more than {MAX_METADATA_BYTES}")
    return text


def text_of(key: str, value: object) -> str | None:
    """The string that an identity attribute on a root span or a resource stands for, as the processor reads it.

    A string stands for itself, an int id for its decimal digits, a mapping as metadata for its JSON (keys sorted,
    compact, bytes as base64, NaN and infinities as strings).

    Returns:
        `None` where the value is of no use.
    """
    if isinstance(value, str):
        return value
    if key == END_USER_ID and isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if key == END_USER_METADATA and isinstance(value, Mapping):
        return json.dumps(_wire_json(value), ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    return None


def encode_tags(value: object) -> str | None:
    """Tags as one comma-separated string: each trimmed, blank and repeated ones left out, the order kept.

    Args:
        value: An iterable of strings, or one string in which commas separate. `None` means "none".

    Raises:
        RefusedError: Not an iterable of strings.
    """
    if value is None:
        return None
    if isinstance(value, str):
        value = (value,)
    if not isinstance(value, Iterable) or isinstance(value, (bytes, bytearray, Mapping)):
        raise RefusedError(f"they are a {_type_name(value)}, not a list of strings")
    found: dict[str, None] = {}
    for tag in value:
        if not isinstance(tag, str):
            raise RefusedError(f"one of them is a {_type_name(tag)}, not a str")
        _utf8_size(tag)
        found.update(dict.fromkeys(part.strip() for part in tag.split(",")))
    found.pop("", None)
    return ",".join(found) or None


def encode_json(value: object) -> str:
    """Any value as compact JSON with sorted keys. What JSON cannot hold becomes `str(value)`.

    Raises:
        RefusedError: The value is nested too deeply, contains itself, or holds an integer too long to print.
    """
    try:
        return json.dumps(_plain(value), ensure_ascii=False, allow_nan=False, sort_keys=True, separators=(",", ":"))
    except RecursionError:
        raise RefusedError("it is nested too deeply or contains itself") from None
    except RefusedError:
        raise
    except Exception as error:  # noqa: BLE001  # a foreign mapping may raise anything
        raise RefusedError(f"it cannot be encoded ({type(error).__name__})") from None


def _plain(value: object) -> Any:
    """The value in types that JSON has."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return _utf8_text(str.__str__(value))
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        # NaN and the infinities are no JSON.
        return float(value) if math.isfinite(value) else str(float(value))
    if isinstance(value, Mapping):
        return {_key(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return _printed(value)


def _wire_json(value: object) -> Any:
    """An attribute value (which the SDK has cleaned already) by protobuf's JSON mapping."""
    if isinstance(value, Mapping):
        return {str(key): _wire_json(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_wire_json(item) for item in value]
    if isinstance(value, bytes):
        return base64.b64encode(value).decode("ascii")
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value if value is None or isinstance(value, (str, int, float)) else str(value)


def _key(key: object) -> str:
    if isinstance(key, str):
        return _utf8_text(str.__str__(key))
    if key is None or isinstance(key, (bool, int, float)):
        return json.dumps(key)
    return _printed(key)


def _printed(value: object) -> str:
    try:
        return _utf8_text(str(value))
    except RecursionError:
        raise
    except Exception:  # noqa: BLE001  # whatever a foreign __str__ raises, one value must not cost the others
        return f"<unprintable {_type_name(value)}>"


def _utf8_text(text: str) -> str:
    """The text, with lone surrogates (which UTF-8 cannot hold) written as escapes."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _utf8_size(text: str) -> int:
    try:
        return len(text.encode("utf-8"))
    except UnicodeEncodeError:
        raise RefusedError("UTF-8 cannot hold it") from None


def _decimal(number: int) -> str:
    # Python refuses to print integers of thousands of digits; such an id is too long anyway.
    if number.bit_length() > MAX_ID_BYTES * 4:
        raise RefusedError(f"it has more than {MAX_ID_BYTES} bytes")
    return str(number)


def _type_name(value: object) -> str:
    return type(value).__name__
