"""README and filters say the same."""

from __future__ import annotations

import re

import pytest

from neatlogs_processor.page.api_document import document
from neatlogs_processor.query.text import parse
from support import filter_tables

README = filter_tables.README.read_text(encoding="utf-8")
SECTION = README.partition("\n## Filters\n")[2].partition("\n## ")[0]


def test_the_readme_s_tables_are_the_fields_and_operators() -> None:
    """A field or an operator cannot be added or changed without the README saying so."""
    assert filter_tables.current() == filter_tables.tables(), "run: cd tests && python -m support.filter_tables"


@pytest.mark.parametrize("typed", SECTION.partition("```\n")[2].partition("```")[0].splitlines())
def test_the_readme_s_filters_can_be_typed(typed: str) -> None:
    """Every example is understood."""
    assert parse(typed)


def test_the_readme_names_every_address_of_the_api() -> None:
    """What the OpenAPI document describes stands in the README, and nothing else."""
    section = README.partition("\n## The API\n")[2].partition("\n## ")[0]
    named = set(re.findall(r"`(/api/[^`]*)`", section))
    assert named == {*document()["paths"], "/api/openapi.json"}
