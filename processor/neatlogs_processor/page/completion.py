"""What could be typed next in the filter bar: fields, operators, and values that were really observed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from neatlogs_processor.query import text
from neatlogs_processor.query.fields import FIELDS, METADATA, STATUSES, Field, Kind, Operator
from neatlogs_processor.query.filters import MAX_VALUE_CHARS
from neatlogs_processor.query.pseudonyms import PseudonymousReader
from neatlogs_processor.query.reader import TraceReader
from neatlogs_processor.query.view import View

LIMIT: Final = 12
"""How many proposals there are."""


@dataclass(frozen=True)
class Proposal:
    """Something that could be typed.

    Attributes:
        text: What takes the place of what was typed since `Proposals.start`.
        detail: What it means.
        traces: In how many traces it was seen; `None` for words of the grammar.
    """

    text: str
    detail: str = ""
    traces: int | None = None


@dataclass(frozen=True)
class Proposals:
    """What could be typed next, in place of what stands there from the character `start` on."""

    start: int
    items: tuple[Proposal, ...]


def complete(reader: TraceReader, view: View, typed: str, *, now: int) -> Proposals:
    """Return what could stand at the end of the typed text; the view says in which period values are looked for."""
    spot = text.last_spot(typed)
    start, part = spot.start, typed[spot.start :]
    prefix = part.strip().strip('"')
    items: list[Proposal] = []
    if spot.part is text.Part.FIELD:
        items = _fields(reader, view, prefix.removeprefix("-"), now)
        start += part.startswith("-")
    elif spot.part is text.Part.KEY:
        items = _keys(reader, view, prefix, now)
    elif spot.part is text.Part.OPERATOR and spot.field is not None:
        key = spot.field.key
        if key and typed.endswith(key):
            # Nothing follows the key yet: it may be the beginning of a longer one.
            items, start = _keys(reader, view, key, now), len(typed) - len(key)
        else:
            space = "" if typed[:start].endswith((" ", "\t")) else " "
            items = [Proposal(f"{space}{words} ") for words in _operators(reader, spot.field, prefix)]
    elif spot.part is text.Part.VALUE and spot.field is not None:
        # What follows "is" may still become "is not" or "is any of".
        is_is = spot.operator is Operator.IS
        longer = [words[3:] for words in _operators(reader, spot.field, f"is {prefix}")] if is_is else []
        items = _values(reader, view, spot.field, prefix, now) + [Proposal(f"{words} ") for words in longer]
    elif "and".startswith(prefix.lower()):
        items = [Proposal("and ", "another filter")]
    return Proposals(start, tuple(items[:LIMIT]))


def _operators(reader: TraceReader, field: Field, prefix: str) -> list[str]:
    wanted = prefix.lower()
    # Where end users are pseudonyms, some of their operators are refused.
    known = reader.operators_of(field) if isinstance(reader, PseudonymousReader) else text.operators_of(field)
    return [words for words in known if words.startswith(wanted) and words != wanted.strip()]


def _fields(reader: TraceReader, view: View, prefix: str, now: int) -> list[Proposal]:
    known = [
        Proposal(spec.name + (":" if spec.name == METADATA else " "), spec.help.replace("`", ""))
        for spec in FIELDS.values()
        if spec.name.startswith(prefix.lower()) or (len(prefix) > 2 and prefix.lower() in spec.name)
    ]
    if not prefix:
        return known
    keys = _keys(reader, view, prefix, now)
    return known + [Proposal(f"{METADATA}:{key.text}", key.detail, key.traces) for key in keys]


def _keys(reader: TraceReader, view: View, prefix: str, now: int) -> list[Proposal]:
    found = []
    for seen in reader.metadata_keys(prefix, view, now=now, limit=LIMIT):
        # A key that is empty, or too long to be typed, is none that can be filtered by.
        if seen.value and len(seen.value) <= MAX_VALUE_CHARS:
            written = text.render_field(Field(METADATA, seen.value)).removeprefix(f"{METADATA}:")
            found.append(Proposal(f"{written} ", "metadata", seen.traces))
    return found


def _values(reader: TraceReader, view: View, field: Field, prefix: str, now: int) -> list[Proposal]:
    kind = field.spec.kind
    if kind is Kind.CHOICE:
        return [Proposal(word) for word in STATUSES if word.startswith(prefix.lower())]
    if kind in (Kind.COUNT, Kind.DURATION, Kind.TIME):
        return []
    seen = reader.values(field, prefix, view, now=now, limit=LIMIT)
    return [Proposal(text.render_value(kind, one.value), "", one.traces) for one in seen]
