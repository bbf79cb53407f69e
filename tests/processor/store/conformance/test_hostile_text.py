"""Text that some layer could take for its own, text in capitals, and JSON of every type: the same on both engines."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest

from neatlogs_processor.core.text import fold
from neatlogs_processor.query.fields import Arity, Field, Operator
from neatlogs_processor.query.filters import Filter
from neatlogs_processor.query.text import parse
from neatlogs_processor.query.view import ALL_TIME, Tab, View
from support.filters import AWKWARD
from support.stored import NOW, Stored
from support.two_engines import Database, TwoEngines, lists_of, page_of, two_engines

# ruff: noqa: RUF001  # letters that look alike are what this is about

# Every kind of letter whose case is not simple, and what normal forms take apart.
LETTERS = [
    *(
        "Straße",
        "STRASSE",
        "straſſe",
        "İstanbul",
        "istanbul",
        "ıstanbul",
        "ΣΊΣΥΦΟΣ",
        "σίσυφος",
        "K",
        "k",
        "Å",
        "å",
        "Å",
    ),
    *(
        "ﬁn",
        "FIN",
        "ǆ",
        "ǅ",
        "Ǆ",
        "ᾳ",
        "ΑΙ",
        "ŉ",
        "ʼN",
        "Ⅷ",
        "ⅷ",
        "ﬀ",
        "Ꭰ",
        "ꭰ",
        "e\u0301",
        "É",
        "①",
        "ｆｕｌｌ",
        "FULL",
        "½",
    ),
]
ODD = [text for text in AWKWARD if "\x00" not in text]
USERS = [*LETTERS, *ODD, *("x\x00y", "?", "{p0:String}", "\\N", "NULL", "{1}", "a?b", "%s", "'", "\\'", "\r\n", "\x0b")]
WITH_ONE = [op for op in Operator if op.arity is Arity.ONE and op.words[0].isalpha()]


def same(engines: TwoEngines, filters: Sequence[Filter]) -> None:
    """Compare which traces each filter selects."""
    sqlite, clickhouse = engines.selected(filters)
    different = [filter_ for filter_, one, other in zip(filters, sqlite, clickhouse, strict=True) if one != other]
    assert different == []


def test_odd_text_is_found_as_it_stands(database: Database) -> None:
    """Quotes, marks of SQL and of parameters, control and combining characters: all are text, everywhere."""
    traces = [
        Stored(
            number,
            end_user=text,
            # SQLite's JSON ends a text at a zero byte.
            metadata={"plan": text, text: "key", "in": {text: 1}} if "\x00" not in text else None,
            workflow=text,
            session=text,
            tags=(text.replace(",", " "),),
            services=(text,),
        )
        for number, text in enumerate(USERS)
    ]
    with two_engines(database, traces) as engines:
        everything = View(period=ALL_TIME, limit=500)
        assert lists_of(engines.clickhouse, everything) == lists_of(engines.sqlite, everything)
        asked = []
        for number, text in enumerate(USERS):
            # All operators on all of them are as many statements again, and say no more.
            operators = (WITH_ONE[number % len(WITH_ONE)],)
            fields = [Field("end_user"), Field("tag"), Field("metadata", "plan"), Field("metadata", f"in.{text}")]
            asked += [Filter(field, operator, (text,)) for field in fields for operator in operators]
            asked.append(Filter(Field("metadata", text), Operator.IS, ("key",)))
        same(engines, asked)
        for text in ODD[::20]:
            view = View(filters=(Filter(Field("end_user"), Operator.IS, (text,)),), period=ALL_TIME)
            assert lists_of(engines.clickhouse, view) == lists_of(engines.sqlite, view)
        assert engines.clickhouse.values(Field("end_user"), "", everything, now=NOW, limit=500) == (
            engines.sqlite.values(Field("end_user"), "", everything, now=NOW, limit=500)
        )
        assert engines.clickhouse.metadata_keys("", everything, now=NOW, limit=500) == (
            engines.sqlite.metadata_keys("", everything, now=NOW, limit=500)
        )


def test_case_is_ignored_alike(database: Database) -> None:
    """Each word finds the same others by `contains` and its relatives, whatever letters it is written in."""
    with two_engines(database, [Stored(number, word) for number, word in enumerate(LETTERS)]) as engines:
        same(engines, [Filter(Field("end_user"), operator, (word,)) for word in LETTERS for operator in WITH_ONE])


def test_every_character_is_folded_as_python_folds_it(database: Database) -> None:
    """Of all characters that Python's Unicode knows, none is folded to anything else by ClickHouse."""
    from unicodedata import category

    from neatlogs_processor.query.clickhouse_dialect import fold as folding

    version = tuple(int(part) for part in database.client.server_version.split(".")[:2])
    if version < (26, 3):
        pytest.skip("case folding came with ClickHouse 26.3")
    known = [chr(code) for code in range(1, 0x110000) if category(chr(code)) not in ("Cn", "Cs")]
    # An array of them would be a parameter of a megabyte; private use folds to itself.
    known = [one for one in known if category(one) != "Co"]
    different = []
    for start in range(0, len(known), 20_000):
        part = known[start : start + 20_000]
        folded = database.client.query(
            f"SELECT arrayMap(one -> {folding('one', version)}, {{p0:Array(String)}})", parameters={"p0": part}
        ).result_rows[0][0]
        different += [one for one, other in zip(part, folded, strict=True) if other != fold(one)]
    assert different == []


JSON_VALUES = [
    *(1, 1.0, 0, -1, 1.5, 1e3, 2**53 - 1, 2**53 + 1, 2**63 - 1, -(2**63), 0.1, 1e-7, True, False, None),
    *(
        "1",
        "1.0",
        "01",
        "true",
        "True",
        "false",
        "null",
        "",
        " ",
        "1e3",
        "9223372036854775807",
        "pro",
        "Größe",
        '"',
        "\\",
    ),
    *([1], [], {}, {"a": 1}, "9" * 25, "[1]", "{}", "0.1", "1e-7", "é", "\u2028", "\x7f"),
]
JSON_TYPED = [
    *(
        "1",
        "1.0",
        "0",
        "-1",
        "1.5",
        "1000",
        "9007199254740991",
        "9007199254740993",
        "9223372036854775807",
        "0.1",
        "1e-7",
    ),
    *("true", "false", "null", '"1"', '"true"', '"null"', '""', '"pro"', '"Größe"', '"9999999999999999999999999"'),
]


def test_json_types_are_told_apart_alike(database: Database) -> None:
    """A number, a word and a text that look alike match what they match on the other engine, at a key and at a path."""
    traces = [
        Stored(number, f"user {number}", {"n": value, "in": {"n": value}, "a.b": value, "a": {"b": "path"}})
        for number, value in enumerate(JSON_VALUES)
    ]
    traces += [Stored(90, "user 90", {"m": 1}), Stored(91, "user 91"), Stored(92, "user 92", {"a": {"b": "path"}})]
    questions = [f"metadata:{key} is {typed}" for typed in JSON_TYPED for key in ("n", "in.n", "a.b")]
    questions += [f"metadata:n is not {typed}" for typed in JSON_TYPED]
    questions += [
        f"metadata:n {sign} {number}" for sign in ("<", "<=", ">", ">=") for number in ("0", "1", "1.5", "1e3")
    ]
    questions += [f"metadata:n {sign} 9007199254740992" for sign in ("<", "<=", ">", ">=")]
    questions += [f"metadata:n {words} {text}" for words in ("contains", "starts with") for text in ("1", "TRU", "GRÖ")]
    questions += ["metadata:n is set", "metadata:n is not set", "metadata:a.b is path", "metadata:a.b is set"]
    questions += ["metadata:n is any of 1, true, pro", 'metadata:n is none of 1, "1", null']
    with two_engines(database, traces) as engines:
        same(engines, [filter_ for question in questions for filter_ in parse(question)])


METADATA_TEXTS = [
    '{"plan":"pro","plan":"free"}',
    '{"plan":"pro","a":{"plan":1},"a":{"plan":2}}',
    ' { "plan" : "pro" } ',
    '{"plan":"\\u0070ro"}',
    '{"pl\\u0061n":"pro"}',
    '{"plan":"pro"',
    '{"plan":"pro"} {"plan":"free"}',
    "[1]",
    '"plan"',
    "null",
    "",
    "{}",
    '{"plan":12345678901234567890123}',
    '{"plan":"12345678901234567890123"}',
    '{"plan":5.0}',
    '{"plan":5}',
    '{"plan":5e0}',
    '{"plan":-0}',
    json.dumps({"plan": "x" * 70_000}),
    json.dumps({"plan": "Ü" * 30_000}),
    '{"":1}',
    '{"plan":"tab\\tline\\nnull\\u0000"}',
]


def test_metadata_is_read_as_its_sender_wrote_it(database: Database) -> None:
    """Keys that stand twice, escapes, what is no object, and what is too long, count alike."""
    traces = [Stored(number, f"user {number}", text) for number, text in enumerate(METADATA_TEXTS)]
    questions = [
        *("metadata:plan is pro", "metadata:plan is free", "metadata:plan is set", "metadata:plan is not pro"),
        *("metadata:a.plan is 1", "metadata:a.plan is 2", "metadata:plan is 5", "metadata:plan contains 5"),
        *("metadata:plan is 12345678901234567890123", 'metadata:plan is "12345678901234567890123"'),
        *("metadata:plan > 4", "metadata:plan starts with x", "metadata:plan contains Ü", "metadata:plan is 0"),
    ]
    with two_engines(database, traces) as engines:
        everything = View(period=ALL_TIME, limit=500)
        assert lists_of(engines.clickhouse, everything) == lists_of(engines.sqlite, everything)
        same(engines, [filter_ for question in questions for filter_ in parse(question)])


@pytest.mark.parametrize("field", ["metadata:plan.x", "tag", "workflow", "trace_id"])
def test_many_filters_of_many_values_are_answered(database: Database, field: str) -> None:
    """A statement stays short, and is planned in time, however many values are listed."""
    numbers = [str(number) for number in range(10_000_000, 10_000_066)]
    listed = ", ".join([*numbers, *(f"{number}.5" for number in numbers), *(f'"no {number}"' for number in numbers)])
    traces = [
        Stored(1, metadata={"plan": {"x": 10_000_003}}, tags=("10000003",), workflow="10000003"),
        Stored(2, metadata={"plan.x": "no 10000004"}, tags=("no 10000004",), workflow="no 10000004", ago=10**9),
        Stored(3, metadata={"plan": {"x": 1.5}}, tags=("1",), workflow="10000", ago=10**10),
    ]
    if field == "trace_id":
        listed = ", ".join(f"{number:032x}" for number in range(200))
    with two_engines(database, traces) as engines:
        for words in ("is any of", "is none of"):
            filters = parse(f"{field} {words} {listed}") * 6
            for tab in (Tab.TRACES, Tab.USERS):
                view = View(tab, filters, ALL_TIME)
                assert page_of(engines.clickhouse, view) == page_of(engines.sqlite, view)


def test_numbers_are_any_of_numbers_however_they_are_written(database: Database) -> None:
    """Whole numbers, fractions, exponents and what no type holds exactly are told apart in lists as they are alone."""
    kept = [1, 1.0, 1.5, -(2**63), 2**63 - 1, 2**63, 2**53 + 1, 1e300, -0.0, "1", "1.0", True, None, "true"]
    listed = ["1", "1.0", "1.5", "-9223372036854775808", "9223372036854775807", "9223372036854775808", "1e300", "0"]
    listed += ["9007199254740993", "9007199254740992", "true", "null", '"1"', '"null"', "10e-1", "0.1"]
    traces = [Stored(number, metadata={"n": value}, ago=number * 10**9) for number, value in enumerate(kept)]
    with two_engines(database, traces) as engines:
        pairs = [f"metadata:n is any of {one}, {other}" for one in listed for other in listed]
        same(engines, [parse(text)[0] for text in [*pairs, f"metadata:n is any of {', '.join(listed)}"]])


def test_many_and_long_values_are_bound(database: Database) -> None:
    """A filter may list two hundred values of four thousand characters."""
    long = [f"{number:03}" + "x" * 4000 for number in range(200)]
    with two_engines(database, [Stored(1, long[7]), Stored(2, "short"), Stored(3, long[199], ago=0)]) as engines:
        for operator in (Operator.IS_ANY_OF, Operator.IS_NONE_OF):
            view = View(filters=(Filter(Field("end_user"), operator, tuple(long)),), period=ALL_TIME)
            assert engines.clickhouse.traces(view, now=NOW) == engines.sqlite.traces(view, now=NOW)
