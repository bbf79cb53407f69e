"""The filter bar: one filter at a time as a chip, all of them as text. Both are editors of the view's filters."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from neatlogs_processor.query import text
from neatlogs_processor.query.errors import QueryError
from neatlogs_processor.query.fields import FIELDS, METADATA, Arity, Kind, Operator
from neatlogs_processor.query.filters import Filter
from neatlogs_processor.query.view import View

_WORD: Final = re.compile(r'\s*(?:"(?:[^"\\]|\\.)*"?|\S+)')
_NUMBERS: Final = (Kind.COUNT, Kind.DURATION, Kind.TIME)


@dataclass(frozen=True)
class Chip:
    """One filter of a view.

    Attributes:
        index: Its place.
        filter: It.
        value: Its values as the editor of a chip shows them.
        without: The view without it.
        opposite: The view with its opposite instead; `None` where there is none.
    """

    index: int
    filter: Filter
    value: str
    without: View
    opposite: View | None


def chips(view: View) -> tuple[Chip, ...]:
    """Return the filters of a view, each with what can be done to it."""
    found = []
    for index, filter_ in enumerate(view.filters):
        negated = filter_.negated()
        opposite = None if negated is None else replacing(view, index, negated)
        found.append(Chip(index, filter_, _typed(filter_), view.without(index), opposite))
    return tuple(found)


def replacing(view: View, index: int | None, filter_: Filter) -> View:
    """Return the view with a filter in place of another, or beside them all."""
    if index is None or index >= len(view.filters):
        return view.adding(filter_)
    return view.with_filters((*view.filters[:index], filter_, *view.filters[index + 1 :]))


def typed_filter(form: Mapping[str, str]) -> str:
    """Return the text form of what the editor of a chip was given: `field`, `key`, `operator`, `value`.

    It is not checked: whoever reads the text says what is wrong with it.
    """
    name, operator, value = form.get("field", ""), form.get("operator", ""), form.get("value", "")
    field = name
    if name == METADATA:
        key = form.get("key", "").strip()
        field = f"{METADATA}:{json.dumps(key, ensure_ascii=False) if key else ''}"
    known = next((one for one in Operator if one.words == operator), None)
    if known is None or known.arity is Arity.NONE:
        return f"{field} {operator}".strip()
    return f"{field} {operator} {_written(name, known, value.strip())}".strip()


def _written(name: str, operator: Operator, value: str) -> str:
    """Return a value so that it means itself, whatever characters it has; lists keep their commas and quotes."""
    spec = FIELDS.get(name)
    if not value or spec is None or spec.kind in (*_NUMBERS, Kind.CHOICE) or operator.arity is Arity.MANY:
        return value
    if spec.kind is Kind.JSON and _is_json(value):
        return value
    return json.dumps(value, ensure_ascii=False)


def _is_json(value: str) -> bool:
    """Tell whether somebody wrote a JSON number, word or text, which the text form takes as it is."""
    try:
        return not isinstance(json.loads(value), (dict, list))
    except ValueError:
        return False


def _typed(filter_: Filter) -> str:
    kind = filter_.field.spec.kind
    values = filter_.values
    if len(values) == 1 and isinstance(values[0], str) and filter_.operator.arity is Arity.ONE:
        value = values[0]
        return text.render_value(kind, value) if kind is Kind.JSON and _is_json(value) else value
    return ", ".join(text.render_value(kind, value) for value in values)


@dataclass(frozen=True)
class Question:
    """A question that cannot be understood.

    Attributes:
        error: What is wrong.
        before, wrong, after: The text of the filter up to the mistake, the word that it begins with, and the rest.
    """

    error: QueryError
    before: str = ""
    wrong: str = ""
    after: str = ""


def question(error: QueryError, texts: list[str]) -> Question:
    """Return what to show for an error in the `filter` parameters."""
    if error.parameter != "filter" or error.index >= len(texts):
        return Question(error)
    typed, start = texts[error.index], error.position
    word = _WORD.match(typed, start)
    end = word.end() if word else len(typed)
    return Question(error, typed[:start], typed[start:end], typed[end:])
