"""Stores and filters as hypothesis makes them."""

from __future__ import annotations

from hypothesis import strategies as st

from neatlogs_processor.query.fields import FIELDS, ORDER, STATUSES, Arity, Field, Kind
from neatlogs_processor.query.filters import Filter, Scalar
from support.filters import AWKWARD
from support.stored import MINUTE, NOW, SECOND, Stored

# What values and filters are drawn from: few enough to meet, awkward enough to hurt.
WORDS = [
    "ali",
    "Ali",
    "ALINA",
    "Straße",
    "STRASSE",
    "pro",
    "1",
    "true",
    "",
    "ﬁ",
    "İstanbul",
    "istanbul",
    "a\nb",
    "%",
    "_",
]
words = st.one_of(st.sampled_from(WORDS), st.sampled_from([word for word in AWKWARD if "\x00" not in word]))
names = words.filter(lambda word: word.strip() == word)
keys = st.sampled_from(["plan", "a", "b", "a.b", 'q"uote', "back\\slash", "$.x", "ключ", "a.b.c", ""])
leaves = st.one_of(st.none(), st.booleans(), st.sampled_from([0, 1, 2, -1, 1.0, 1.5, 2**40]), words)
inner = st.one_of(leaves, st.dictionaries(keys, leaves, max_size=1))
metadata = st.dictionaries(
    keys, st.one_of(leaves, st.lists(leaves, max_size=2), st.dictionaries(keys, inner, max_size=2)), max_size=3
)


@st.composite
def stores(draw: st.DrawFn) -> list[Stored]:
    """Traces of few end users and sessions."""
    users = draw(st.lists(names, min_size=1, max_size=3))
    sessions = draw(st.lists(names, min_size=1, max_size=3))
    return [
        Stored(
            number=number,
            end_user=draw(st.none() | st.sampled_from(users)),
            metadata=draw(st.none() | metadata),
            workflow=draw(st.none() | names.filter(bool)),
            session=draw(st.none() | st.sampled_from(sessions)),
            services=tuple(draw(st.lists(names.filter(lambda word: "\n" not in word), min_size=1, max_size=2))),
            name=draw(names),
            status=draw(st.sampled_from(["unset", "ok", "error"])),
            tags=tuple(draw(st.lists(names.filter(lambda word: "\n" not in word and "," not in word), max_size=2))),
            tokens=draw(st.integers(0, 3)),
            errors=draw(st.integers(0, 2)),
            spans=draw(st.integers(1, 3)),
            ago=MINUTE - number,
            duration=draw(st.integers(0, 3)) * SECOND,
            root_received=draw(st.integers(0, 4)) > 0,
        )
        for number in range(draw(st.integers(1, 8)))
    ]


@st.composite
def filters(draw: st.DrawFn) -> Filter:
    """Filters that have a chance of selecting something of such a store."""
    name = draw(st.sampled_from(list(FIELDS)))
    field = Field(name, draw(keys.filter(bool)) if name == "metadata" else "")
    operator = draw(st.sampled_from(field.spec.operators))
    kind = field.spec.kind
    if kind in (Kind.COUNT, Kind.DURATION, Kind.TIME):
        unit = {Kind.COUNT: 1, Kind.DURATION: SECOND, Kind.TIME: 1}[kind]
        base = NOW - MINUTE if kind is Kind.TIME else 0
        values: st.SearchStrategy[str | int | Scalar] = st.integers(0, 4).map(lambda number: base + number * unit)
    elif kind is Kind.CHOICE:
        values = st.sampled_from(list(STATUSES))
    elif kind is Kind.HEX:
        ids = [Stored(number).trace_id for number in range(4)]
        values = st.sampled_from([*ids, ids[0].upper(), ids[1][:3], ids[1][-3:], "ab cd", "xyz", ""])
    elif kind is Kind.JSON and operator in ORDER:
        values = st.sampled_from(["0", "1", "1.25", "-3"]).map(Scalar)
    elif kind is Kind.JSON and operator.words in ("is", "is not", "is any of", "is none of"):
        values = st.one_of(words, st.sampled_from(["1", "1.0", "1.5", "true", "false", "null", "0"]).map(Scalar))
    else:
        values = words
    sizes = {Arity.NONE: (0, 0), Arity.ONE: (1, 1), Arity.MANY: (1, 3)}[operator.arity]
    return Filter(field, operator, tuple(draw(st.lists(values, min_size=sizes[0], max_size=sizes[1]))))
