"""A filter: a field, an operator and its values. It knows its sentence here, its bound SQL in `conditions`."""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from typing import Final

from neatlogs_processor.query import units
from neatlogs_processor.query.fields import CHOICE, ORDER, STATUSES, Arity, Field, Kind, Operator

MAX_FILTERS: Final = 32
"""How many filters a view may have."""
MAX_VALUES: Final = 200
"""How many values `is any of` may list."""
MAX_VALUE_CHARS: Final = 4096
"""How long a value, and a key of metadata, may be."""

_MAX_INTEGER: Final = 2**63 - 1
_JSON_SCALAR: Final = re.compile(r"-?(0|[1-9][0-9]{0,300})(\.[0-9]+)?([eE][+-]?[0-9]{1,3})?|true|false|null")


@dataclass(frozen=True)
class Scalar:
    """A JSON number, `true`, `false` or `null` as it is typed without quotes: it matches that value and that text."""

    text: str

    def __post_init__(self) -> None:
        if not reads_as_scalar(self.text):
            raise ValueError(f"{self.text!r} is no JSON number, true, false or null")

    @property
    def number(self) -> int | float | None:
        """The number that it is; `None` for the three words."""
        value = json.loads(self.text)
        if value is None or isinstance(value, bool):
            return None
        # SQLite's integers have 64 bits, and its JSON reads longer ones as floating point.
        return float(value) if isinstance(value, int) and not -_MAX_INTEGER <= value <= _MAX_INTEGER else value


def reads_as_scalar(text: str) -> bool:
    """Tell whether text without quotes means a JSON number, `true`, `false` or `null`."""
    if _JSON_SCALAR.fullmatch(text) is None:
        return False
    value = json.loads(text)
    return not isinstance(value, (int, float)) or math.isfinite(float(value))


@dataclass(frozen=True)
class Filter:
    """A condition on a trace; on a session or an end user, on their traces (see `conditions`).

    Attributes:
        field: What it looks at.
        operator: How it compares; one of `field.spec.operators`.
        values: As many as the operator takes. `str` for text and words; `int` for counts, durations and times (in
            nanoseconds); for metadata also `Scalar`, which `is` and its relatives take as JSON.

    Raises:
        ValueError: Field, operator and values do not go together.
    """

    field: Field
    operator: Operator
    values: tuple[str | int | Scalar, ...] = ()

    def __post_init__(self) -> None:
        if self.operator not in self.field.spec.operators:
            raise ValueError(f"{self.field.name} does not go with {self.operator.words!r}")
        count = len(self.values)
        fits = {Arity.NONE: count == 0, Arity.ONE: count == 1, Arity.MANY: 1 <= count <= MAX_VALUES}
        if not fits[self.operator.arity]:
            raise ValueError(f"{self.operator.words!r} does not take {count} values")
        for value in self.values:
            problem = self.problem_of(self.field, self.operator, value)
            if problem:
                raise ValueError(problem)

    @staticmethod
    def problem_of(field: Field, operator: Operator, value: str | int | Scalar) -> str | None:
        """Say why the value does not go with field and operator, or `None` where it does."""
        kind = field.spec.kind
        if kind in (Kind.COUNT, Kind.DURATION, Kind.TIME):
            fits = isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _MAX_INTEGER
            return None if fits else f"{field.name} is compared with {kind.value}, at most 2^63 - 1"
        if kind is Kind.JSON and operator in ORDER:
            number = isinstance(value, Scalar) and value.number is not None
            return None if number else f"{operator.words} compares with a number"
        if isinstance(value, Scalar):
            takes = kind is Kind.JSON and operator in CHOICE
            return None if takes else f"{field.name} {operator.words} compares with text"
        if not isinstance(value, str):
            return f"{field.name} is compared with {kind.value}"
        if kind is Kind.CHOICE and value not in STATUSES:
            return f"{field.name} is one of {', '.join(STATUSES)}"
        if len(value) > MAX_VALUE_CHARS:
            return f"a value has at most {MAX_VALUE_CHARS:,} characters"
        return "a value is text that UTF-8 can hold" if _has_surrogate(value) else None

    @property
    def sentence(self) -> str:
        """The filter in English: `end user contains “ali”`, `workflow is “chat” or “search”`."""
        return f"{self.field.label} {_predicate(self)}"

    def negated(self) -> Filter | None:
        """Return the filter that selects exactly what this one does not, or `None` where no operator says so."""
        negation = self.operator.negation
        # Over metadata, > and <= are both false where there is no number.
        if negation is None or (self.field.spec.kind is Kind.JSON and self.operator in ORDER):
            return None
        return Filter(self.field, negation, self.values)


def _has_surrogate(text: str) -> bool:
    return any("\ud800" <= character <= "\udfff" for character in text)


_COMPARED: Final = {
    Operator.EQUAL: "is",
    Operator.NOT_EQUAL: "is not",
    Operator.GREATER: "is over",
    Operator.GREATER_OR_EQUAL: "is at least",
    Operator.LESS: "is under",
    Operator.LESS_OR_EQUAL: "is at most",
}
_COMPARED_TIMES: Final = {
    Operator.EQUAL: "is",
    Operator.NOT_EQUAL: "is not",
    Operator.GREATER: "is after",
    Operator.GREATER_OR_EQUAL: "is not before",
    Operator.LESS: "is before",
    Operator.LESS_OR_EQUAL: "is not after",
}


def _predicate(filter_: Filter) -> str:
    words = [_shown(filter_.field.spec.kind, value) for value in filter_.values]
    operator = filter_.operator
    if operator is Operator.IS_ANY_OF:
        return f"is {_listed(words, 'or')}"
    if operator is Operator.IS_NONE_OF:
        return f"is not {words[0]}" if len(words) == 1 else f"is neither {_listed(words, 'nor')}"
    names = _COMPARED_TIMES if filter_.field.spec.kind is Kind.TIME else _COMPARED
    return " ".join([names.get(operator, operator.words), *words])


def _listed(words: list[str], last: str) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} {last} {words[-1]}"


def _shown(kind: Kind, value: str | int | Scalar) -> str:
    if isinstance(value, Scalar):
        return value.text
    if isinstance(value, int):
        if kind is Kind.DURATION:
            return units.write_duration(value)
        return units.write_time(value) if kind is Kind.TIME else f"{value:,}"
    return value if kind is Kind.CHOICE else f"“{value}”"
