"""Filters, views and their parts as hypothesis makes them."""

from __future__ import annotations

from hypothesis import strategies as st

from neatlogs_processor.query.fields import CHOICE, FIELDS, METADATA, ORDER, STATUSES, Arity, Field, Kind, Operator
from neatlogs_processor.query.filters import Filter, Scalar
from neatlogs_processor.query.view import SORTS, Period, Sort, Tab, View

AWKWARD = [
    *("|", ":", ",", '"', "\\", "%", "#", "&", "+", "=", "'", ";", "-", "?", "/", "_", "*", "(", "--", "`", "[", "$."),
    *("and", " and ", "not", "set", "any of", "is", "a, b", " lead", "trail ", "a\nb", "\t", "%61", "+", " "),
    *("🙂", "👩‍👩‍👧", "שלום", "مرحبا\u202e", "Straße", "İ", "ﬁ", "e\u0301", "\x00", "\x7f", "\ufeff"),
    *("1", "-1.5e3", "true", "null", "01", "'; DROP TABLE traces; --", '" OR 1=1 --', "x') OR ('1'='1"),
]
"""Pieces of text that some layer could take for its own."""

text = st.one_of(
    st.sampled_from(AWKWARD),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=12),
    st.lists(st.one_of(st.sampled_from(AWKWARD), st.sampled_from(["a", "B", "chat", "ali"])), max_size=4).map("".join),
)
scalars = st.sampled_from(["0", "1", "-1", "1.5", "1e3", "-0", "12345678901234567890", "true", "false", "null"])
integers = st.one_of(st.integers(0, 5), st.integers(0, 2**63 - 1))
keys = st.one_of(st.sampled_from(["plan", "a.b", "a b", "ключ"]), text.filter(bool))

fields = st.one_of(
    st.sampled_from([name for name in FIELDS if name != METADATA]).map(Field),
    keys.map(lambda key: Field(METADATA, key)),
)


def values(field: Field, operator: Operator) -> st.SearchStrategy[str | int | Scalar]:
    """Return the values that go with a field and an operator."""
    kind = field.spec.kind
    if kind in (Kind.COUNT, Kind.DURATION, Kind.TIME):
        return integers
    if kind is Kind.CHOICE:
        return st.sampled_from(list(STATUSES))
    if kind is Kind.JSON and operator in ORDER:
        return scalars.map(Scalar).filter(lambda scalar: scalar.number is not None)
    return st.one_of(text, scalars.map(Scalar)) if kind is Kind.JSON and operator in CHOICE else text


@st.composite
def _filters(draw: st.DrawFn, field: st.SearchStrategy[Field]) -> Filter:
    drawn = draw(field)
    operator = draw(st.sampled_from(drawn.spec.operators))
    sizes = {Arity.NONE: (0, 0), Arity.ONE: (1, 1), Arity.MANY: (1, 3)}[operator.arity]
    taken = draw(st.lists(values(drawn, operator), min_size=sizes[0], max_size=sizes[1]))
    return Filter(drawn, operator, tuple(taken))


filters = _filters(fields)

periods = st.one_of(
    st.builds(Period),
    st.builds(Period, last=integers),
    st.builds(Period, start=st.none() | integers, end=st.none() | integers),
)


@st.composite
def _views(draw: st.DrawFn) -> View:
    tab = draw(st.sampled_from(Tab))
    sorts = st.sampled_from(SORTS[tab]) if SORTS[tab] else st.nothing()
    return View(
        tab,
        tuple(draw(st.lists(filters, max_size=4))),
        draw(periods),
        draw(st.none() | st.builds(Sort, sorts, st.booleans())),
        draw(st.none() | st.from_regex(r"[A-Za-z0-9_-]{1,40}", fullmatch=True)),
        draw(st.integers(1, 500)),
        draw(st.none() | st.binary(min_size=1, max_size=16).map(bytes.hex)),
    )


views = _views()
