"""What can be filtered by, and how: the fields, the operators, and which go together.

The columns named here are the only ones that ever enter the text of a query; what a user types is always bound.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final


class Arity(Enum):
    """How many values an operator takes."""

    NONE = 0
    ONE = 1
    MANY = 2


class Operator(Enum):
    """An operator: the words one types, the symbol that is short for them, and how many values it takes."""

    IS = ("is", "=", Arity.ONE)
    IS_NOT = ("is not", "!=", Arity.ONE)
    CONTAINS = ("contains", "~", Arity.ONE)
    DOES_NOT_CONTAIN = ("does not contain", "!~", Arity.ONE)
    STARTS_WITH = ("starts with", "^=", Arity.ONE)
    ENDS_WITH = ("ends with", "$=", Arity.ONE)
    IS_ANY_OF = ("is any of", None, Arity.MANY)
    IS_NONE_OF = ("is none of", None, Arity.MANY)
    IS_SET = ("is set", None, Arity.NONE)
    IS_NOT_SET = ("is not set", None, Arity.NONE)
    EQUAL = ("=", None, Arity.ONE)
    NOT_EQUAL = ("!=", None, Arity.ONE)
    GREATER = (">", None, Arity.ONE)
    GREATER_OR_EQUAL = (">=", None, Arity.ONE)
    LESS = ("<", None, Arity.ONE)
    LESS_OR_EQUAL = ("<=", None, Arity.ONE)

    def __init__(self, words: str, symbol: str | None, arity: Arity) -> None:
        self.words = words
        self.symbol = symbol
        self.arity = arity

    @property
    def negation(self) -> Operator | None:
        """The operator that selects exactly what this one does not; `None` where there is none."""
        return _NEGATIONS.get(self)

    @property
    def positive(self) -> Operator | None:
        """For an operator that says no, the one that it says no to; `None` for every other."""
        return _POSITIVES.get(self)


_POSITIVES: Final = {
    Operator.IS_NOT: Operator.IS,
    Operator.DOES_NOT_CONTAIN: Operator.CONTAINS,
    Operator.IS_NONE_OF: Operator.IS_ANY_OF,
    Operator.IS_NOT_SET: Operator.IS_SET,
}
_NEGATIONS: Final = {
    **_POSITIVES,
    **{positive: negative for negative, positive in _POSITIVES.items()},
    Operator.EQUAL: Operator.NOT_EQUAL,
    Operator.NOT_EQUAL: Operator.EQUAL,
    Operator.GREATER: Operator.LESS_OR_EQUAL,
    Operator.LESS_OR_EQUAL: Operator.GREATER,
    Operator.LESS: Operator.GREATER_OR_EQUAL,
    Operator.GREATER_OR_EQUAL: Operator.LESS,
}

ORDER: Final = (Operator.GREATER, Operator.GREATER_OR_EQUAL, Operator.LESS, Operator.LESS_OR_EQUAL)
TEXT: Final = (
    Operator.IS,
    Operator.IS_NOT,
    Operator.CONTAINS,
    Operator.DOES_NOT_CONTAIN,
    Operator.STARTS_WITH,
    Operator.ENDS_WITH,
    Operator.IS_ANY_OF,
    Operator.IS_NONE_OF,
    Operator.IS_SET,
    Operator.IS_NOT_SET,
)
CHOICE: Final = (Operator.IS, Operator.IS_NOT, Operator.IS_ANY_OF, Operator.IS_NONE_OF)
NUMBER: Final = (Operator.EQUAL, Operator.NOT_EQUAL, *ORDER)


class Kind(Enum):
    """What the values of a field are."""

    TEXT = "text"
    SET = "several texts"
    HEX = "hexadecimal digits"
    CHOICE = "a word of a list"
    COUNT = "a whole number"
    DURATION = "a duration"
    TIME = "a time"
    JSON = "a JSON value"


@dataclass(frozen=True)
class FieldSpec:
    """A field that everybody can filter by.

    Attributes:
        name: As it is typed.
        label: As a sentence says it.
        kind: What its values are.
        column: Its column of the table of traces.
        folded: The column with the same text in folded form, where there is one.
        help: What it is, for the table in the README and for autocompletion.
    """

    name: str
    label: str
    kind: Kind
    column: str
    folded: str | None
    help: str

    @property
    def operators(self) -> tuple[Operator, ...]:
        """The operators that go with it, in the order in which they are offered."""
        if self.kind in (Kind.TEXT, Kind.SET, Kind.HEX):
            return TEXT
        if self.kind is Kind.CHOICE:
            return CHOICE
        if self.kind is Kind.JSON:
            return (*TEXT, *ORDER)
        return NUMBER


OK: Final = "ok"
ERROR: Final = "error"
STATUSES: Final = {"unset": 0, OK: 1, ERROR: 2}
"""The words for a status, with their numbers in the store.

As a filter `ok` means every root that has arrived and is not `error`: most senders say `error` or nothing.
"""

METADATA: Final = "metadata"

FIELDS: Final = {
    spec.name: spec
    for spec in (
        FieldSpec("end_user", "end user", Kind.TEXT, "end_user", "end_user_folded", "The end user of the trace."),
        FieldSpec(
            METADATA,
            "metadata",
            Kind.JSON,
            "metadata",
            "metadata_folded",
            "A value of the end user's metadata, by its key: `metadata:plan`, `metadata:company.size`.",
        ),
        FieldSpec(
            "workflow", "workflow", Kind.TEXT, "workflow", "workflow_folded", "The workflow, else the root's name."
        ),
        FieldSpec("session", "session", Kind.TEXT, "session", "session_folded", "The session of the trace."),
        FieldSpec(
            "service", "service", Kind.SET, "services", "services_folded", "`service.name` of any span of the trace."
        ),
        FieldSpec(
            "name", "name", Kind.TEXT, "name", "name_folded", "The root's name; not set while no root has arrived."
        ),
        FieldSpec(
            "status",
            "status",
            Kind.CHOICE,
            "status",
            None,
            "The root's status: `error`; `ok`, if it is not `error`; or `unset`, where the sender said nothing.",
        ),
        FieldSpec("trace_id", "trace id", Kind.HEX, "trace_id", None, "The trace id, in hexadecimal digits."),
        FieldSpec("tag", "tag", Kind.SET, "tags", "tags_folded", "Any of the trace's tags."),
        FieldSpec(
            "duration", "duration", Kind.DURATION, "duration", None, "From first start to last end: `250ms`, `1.5s`."
        ),
        FieldSpec("tokens", "tokens", Kind.COUNT, "tokens", None, "Tokens of the model calls, in and out."),
        FieldSpec("spans", "spans", Kind.COUNT, "spans", None, "How many spans."),
        FieldSpec("errors", "errors", Kind.COUNT, "errors", None, "How many spans with status error."),
        FieldSpec(
            "start", "start", Kind.TIME, "start", None, "When it began: `2026-11-20`, `2026-11-20T10:00:00Z`. In UTC."
        ),
    )
}
"""Every field by name, in the order in which they are offered."""


@dataclass(frozen=True)
class Field:
    """A field of a filter: one of `FIELDS`, and for metadata the key.

    Attributes:
        name: A name of `FIELDS`.
        key: For `metadata` the key: the key itself, or a path of keys with dots between them. Else empty.
    """

    name: str
    key: str = ""

    def __post_init__(self) -> None:
        if self.name not in FIELDS:
            raise ValueError(f"there is no field {self.name!r}")
        if (self.name == METADATA) != bool(self.key):
            raise ValueError("metadata has a key, other fields have none")

    @property
    def spec(self) -> FieldSpec:
        """What is known about it."""
        return FIELDS[self.name]

    @property
    def label(self) -> str:
        """How a sentence calls it: `end user`, `metadata plan`."""
        return f"{self.spec.label} {self.key}" if self.key else self.spec.label
