"""What two engines say differently. A filter means the same in both; a `Dialect` knows how one of them is asked.

Conditions are about rows under the name `t` (or another one that is said) with the columns of `fields.FIELDS`, those of
traces. Their text holds constants of this package and question marks; what a user types is bound to these.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, Protocol

from neatlogs_processor.query.fields import Field, FieldSpec, Operator
from neatlogs_processor.query.filters import Scalar

MAX_PATH: Final = 16
"""A key of metadata with more dots than this is only looked up as it stands, not as a path."""

PARTIAL: Final = (Operator.CONTAINS, Operator.STARTS_WITH, Operator.ENDS_WITH)
"""The operators that compare a part of a text, and ignore case."""

_COMPARISONS: Final = {
    Operator.EQUAL: "=",
    Operator.NOT_EQUAL: "<>",
    Operator.GREATER: ">",
    Operator.GREATER_OR_EQUAL: ">=",
    Operator.LESS: "<",
    Operator.LESS_OR_EQUAL: "<=",
}


class Condition(NamedTuple):
    """SQL with question marks, and what is bound to them."""

    sql: str
    parameters: tuple[Any, ...] = ()


@dataclass(frozen=True)
class Grouped:
    """What a filter asks of a row that stands for many traces.

    Attributes:
        where: Of each trace; it is the same for all traces of a row.
        any: Of at least one trace.
        having: Of all together.
    """

    where: Condition | None = None
    any: Condition | None = None
    having: Condition | None = None


class Dialect(Protocol):
    """How one engine is asked."""

    @property
    def traces(self) -> Condition:
        """The traces under the name `t`, as what stands behind FROM."""

    @property
    def took(self) -> str:
        """How long a trace took: an expression that is the same as its duration, over what is read fastest."""

    @property
    def lasted(self) -> str:
        """How long grouped traces lasted: 0 where no start is known, or their times are the wrong way round."""

    @property
    def tie(self) -> str:
        """What tells traces apart, in an order that never changes."""

    def added_up(self, expression: str) -> str:
        """Return the sum of a number that a sender chose, exact up to 2^53 and never above 2^63 - 1."""

    def one_of(self, column: str, values: Sequence[str]) -> Condition:
        """Say that text is one of these, byte for byte."""

    def partial(self, column: str, operator: Operator, text: str) -> Condition:
        """Compare a part of a column of folded text with text that is not folded yet."""

    def trace_id(self, column: str, operator: Operator, values: Sequence[str]) -> Condition:
        """Compare a trace id with text in lower case."""

    def members(self, spec: FieldSpec, operator: Operator, values: Sequence[str], table: str) -> Condition:
        """Compare the members of a set; true if it is true of one of them."""

    def metadata(self, field: Field, operator: Operator, values: Sequence[str | int | Scalar], table: str) -> Condition:
        """Compare the value at a key of metadata: at the key as it stands, else at the path that its dots describe."""

    def latest_metadata(self, condition: Callable[[str], Condition], *, negated: bool) -> Grouped:
        """Ask of the latest metadata of each end user, whatever the period; who has none passes where negated.

        Args:
            condition: Returns the condition on a table of this name.
            negated: Whether it has to be false.
        """


def compare(expression: str, operator: Operator, value: object) -> Condition:
    """Compare a number."""
    return Condition(f"{expression} {_COMPARISONS[operator]} ?", (value,))


def any_of(expression: str, values: Sequence[Any]) -> Condition:
    """Say that an expression is one of these values, byte for byte."""
    if len(values) == 1:
        return Condition(f"{expression} = ?", tuple(values))
    return Condition(f"{expression} IN ({', '.join('?' * len(values))})", tuple(values))


def conjunction(conditions: Iterable[Condition]) -> Condition:
    """Return the condition that all of these hold; `1` for none."""
    return _joined(" AND ", list(conditions), "1")


def alternative(conditions: Iterable[Condition]) -> Condition:
    """Return, in brackets, the condition that one of these holds; `0` for none."""
    sql, parameters = _joined(" OR ", list(conditions), "0")
    return Condition(f"({sql})", parameters)


def _joined(word: str, conditions: list[Condition], none: str) -> Condition:
    return Condition(
        word.join(condition.sql for condition in conditions) or none,
        tuple(parameter for condition in conditions for parameter in condition.parameters),
    )


def is_comparison(operator: Operator) -> bool:
    """Tell whether an operator compares numbers."""
    return operator in _COMPARISONS
