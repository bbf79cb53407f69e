"""Mutations of OTLP/JSON: of the tree, so that most results are JSON, and of the text, so that some are not."""

from __future__ import annotations

import json
from random import Random
from typing import Any, Final

_VALUES: Final[tuple[Any, ...]] = (
    None,
    True,
    False,
    0,
    1,
    -1,
    1.5,
    3e3,
    -0.0,
    2**31,
    2**63 - 1,
    2**64 - 1,
    2**64,
    -(2**63) - 1,
    10**19,
    1e300,
    "",
    "0",
    "-0",
    "007",
    "1e2",
    "9007199254740993",
    "18446744073709551615",
    "NaN",
    "-Infinity",
    "infinity",
    "u_812",
    "neatlogs.end_user.id",
    "ABCDEFABCDEFABCD",
    "abc",
    "zz",
    "aGVsbG8=",
    "a-_b",
    "SPAN_KIND_SERVER",
    "é\U0001f600",
    "\ud800",
    [],
    {},
    [[]],
    [{}],
    [None],
    {"stringValue": "x"},
    {"intValue": "7"},
    {"kvlistValue": {"values": [{"key": "a", "value": {"doubleValue": "NaN"}}]}},
    {"stringValue": "x", "intValue": 1},
)
_NAMES: Final = (
    "traceId",
    "trace_id",
    "spanId",
    "parentSpanId",
    "parent_span_id",
    "startTimeUnixNano",
    "kind",
    "name",
    "flags",
    "attributes",
    "value",
    "key",
    "stringValue",
    "intValue",
    "bytesValue",
    "doubleValue",
    "boolValue",
    "arrayValue",
    "events",
    "links",
    "status",
    "resource",
    "resourceSpans",
    "unknown",
    "",
    "\ud800",
    "TraceId",
)
_TEXTS: Final = (
    b"NaN",
    b"Infinity",
    b"-",
    b"01",
    b"1.",
    b".5",
    b"1e",
    b"1E+2",
    b"1e400",
    b"0.000",
    b"123456789012345678901234567890",
    b'"\\u00e9"',
    b'"\\ud83d\\ude00"',
    b'"\\ud83d"',
    b'"\\x"',
    b'"\n"',
    b'"\xff"',
    b"{",
    b"}",
    b"[",
    b"]",
    b",",
    b":",
    b" \t\r\n",
    b"\x0b",
    b"\xef\xbb\xbf",
    b"//",
    b"null",
    b"true",
    b"tru",
    b'"traceId":"00",',
    b'"trac\\u0065Id":"00",',
)


def mutate_json(text: bytes, chance: Random, *, most: int = 4) -> bytes:
    """Return a text that differs from `text` by one to `most` edits."""
    try:
        tree = json.loads(text)
    except (ValueError, RecursionError):
        tree = None
    if tree is None or chance.random() < 0.25:
        return _scramble(text, chance, most)
    for _ in range(chance.randint(1, most)):
        tree = _edit(tree, chance)
    spaces = chance.choice((None, None, 1))
    written = json.dumps(tree, ensure_ascii=chance.random() < 0.5, indent=spaces)
    return written.encode("utf-8", "surrogatepass")


def _edit(tree: Any, chance: Random) -> Any:
    inside = isinstance(tree, (dict, list)) and tree
    if inside and chance.random() < 0.85:
        at = chance.choice(list(tree) if isinstance(tree, dict) else range(len(tree)))
        tree[at] = _edit(tree[at], chance)
        return tree
    form = chance.randrange(6)
    if isinstance(tree, dict) and form < 4:
        if form == 0 and tree:
            del tree[chance.choice(list(tree))]
        elif form == 1 and tree:
            name = chance.choice(list(tree))
            tree[chance.choice(_NAMES)] = tree.pop(name)
        else:
            tree[chance.choice(_NAMES)] = chance.choice(_VALUES)
        return json.loads(json.dumps(tree))
    if isinstance(tree, list) and form < 4:
        if form == 0 and tree:
            tree.pop(chance.randrange(len(tree)))
        elif form == 1 and tree:
            tree.append(chance.choice(tree))
        else:
            tree.insert(chance.randint(0, len(tree)), chance.choice(_VALUES))
        return json.loads(json.dumps(tree))
    if form == 4:
        for _ in range(chance.choice((1, 2, 70, 130))):
            tree = [tree] if chance.random() < 0.5 else {chance.choice(("unknown", "arrayValue")): tree}
        return tree
    return json.loads(json.dumps(chance.choice(_VALUES)))


def _scramble(text: bytes, chance: Random, most: int) -> bytes:
    mutated = bytearray(text)
    for _ in range(chance.randint(1, most)):
        at = chance.randint(0, len(mutated))
        form = chance.randrange(6)
        if form == 0 and at < len(mutated):
            mutated[at] = chance.randrange(256)
        elif form == 1:
            del mutated[at : at + chance.randint(1, 4)]
        elif form == 2:
            # Where a value or a member could stand.
            after = mutated.find(chance.choice((b":", b"{", b"[", b",")), at)
            at = after + 1 if after >= 0 else at
            mutated[at:at] = chance.choice(_TEXTS)
        elif form == 3:
            start = mutated.find(b":", at) + 1
            stops = (mutated.find(stop, start) for stop in (b",", b"}", b"]"))
            end = min((found for found in stops if found > 0), default=start)
            mutated[start:end] = chance.choice(_TEXTS)
        elif form == 4:
            piece = mutated[at : at + chance.randint(1, 40)]
            mutated[at:at] = piece
        else:
            mutated[at:at] = chance.choice(_TEXTS)
    return bytes(mutated)
