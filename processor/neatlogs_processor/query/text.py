r"""Filters as one types them: `end_user contains ali and metadata:plan is pro`. The grammar:

    filters  = filter *( "and" filter )
    filter   = ["-"] field operator [value]          a leading "-" says the opposite; "-field" alone: is not set
    field    = a name of `FIELDS`; for metadata, "metadata:" and a key
    operator = the words of an operator, or its symbol
    value    = text up to the next "and", or a JSON string; lists have commas between their values

Names, operators and "and" are read in any case. A value (and a key of metadata) that holds what the grammar uses
stands in double quotes, with the escapes of JSON.
"""

from __future__ import annotations

import contextlib
import difflib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final

from neatlogs_processor.query import units
from neatlogs_processor.query.errors import FilterRefusedError, QueryError
from neatlogs_processor.query.fields import CHOICE, FIELDS, METADATA, STATUSES, Arity, Field, Kind, Operator
from neatlogs_processor.query.filters import (
    MAX_FILTERS,
    MAX_VALUE_CHARS,
    MAX_VALUES,
    Filter,
    Scalar,
    reads_as_scalar,
)

_SPACE: Final = re.compile(r"\s*")
_NAME: Final = re.compile(r"\w+")
_KEY: Final = re.compile(r'[^\s"=!~<>^$,]+')
_AND: Final = re.compile(r"and(?=\s|$)", re.IGNORECASE)
# Neither begins with a repetition: a search for one takes quadratic time where a text is full of spaces.
_VALUE_END: Final = re.compile(r"(?<=\s)and(?=\s|$)", re.IGNORECASE)
_LISTED_END: Final = re.compile(r",|(?<=\s)and(?=\s|$)", re.IGNORECASE)
_COUNT: Final = re.compile(r"[0-9]{1,19}", re.ASCII)
_STRINGS: Final = json.JSONDecoder(strict=False)
# What stays as it is in `render`; everything else gets quotes, so that no value can be taken for grammar.
_PLAIN_KEY: Final = re.compile(r"[\w.@/:+#%&*?-]+")
_PLAIN: Final = re.compile(r"[\w.@/:+#%&*?-]+(?: [\w.@/:+#%&*?-]+)*")
_WORDS_OF_THE_GRAMMAR: Final = frozenset({"and", "not", "set", "any", "none", "of"})


class Part(Enum):
    """A part of a filter, as autocompletion needs to know it."""

    FIELD = "field"
    KEY = "key"
    OPERATOR = "operator"
    VALUE = "value"
    AND = "and"


@dataclass(frozen=True)
class Spot:
    """Where reading stands: in which part, since which character, and what of the filter came before."""

    part: Part
    start: int
    field: Field | None = None
    operator: Operator | None = None


def parse(text: str) -> tuple[Filter, ...]:
    """Return the filters that the text says; none for blank text.

    Raises:
        QueryError: It cannot be understood; the error says from which character on, and what would fit there.
    """
    return _Reader(text).filters()


def located(error: FilterRefusedError, texts: Sequence[str]) -> QueryError:
    """Return the error as one about the text, and the character of it, at which its filter begins.

    Args:
        error: About one of the filters that the texts say together.
        texts: Filters in their text form, which `parse` understands.
    """
    places = [(index, start) for index, text in enumerate(texts) for start in _starts(text)]
    index, position = places[error.place]
    return QueryError(error.message, index=index, position=position, expected=error.expected)


def _starts(text: str) -> list[int]:
    reader = _Reader(text)
    reader.filters()
    return reader.starts


def last_spot(text: str) -> Spot:
    """Return the part that somebody who has typed this text is typing."""
    reader = _Reader(text)
    with contextlib.suppress(QueryError):
        reader.filters()
    return reader.spot


def render(*filters: Filter) -> str:
    """Return the text that says these filters: `parse(render(*filters)) == filters`."""
    return " and ".join(_render_one(filter_) for filter_ in filters)


def render_field(field: Field) -> str:
    """Return the field as it is typed."""
    if not field.key:
        return field.name
    return f"{METADATA}:{field.key if _PLAIN_KEY.fullmatch(field.key) else _quoted(field.key)}"


def render_value(kind: Kind, value: str | int | Scalar) -> str:
    """Return the value as it is typed, in quotes where it needs them."""
    if isinstance(value, Scalar):
        return value.text
    if isinstance(value, int):
        if kind is Kind.DURATION:
            return units.write_duration(value)
        return units.write_time(value) if kind is Kind.TIME else str(value)
    plain = _PLAIN.fullmatch(value) and not _WORDS_OF_THE_GRAMMAR.intersection(value.casefold().split())
    if plain and not (kind is Kind.JSON and reads_as_scalar(value)):
        return value
    return _quoted(value)


def operators_of(field: Field) -> tuple[str, ...]:
    """Return the operators that go with a field as they are offered: in words, numbers in symbols."""
    return tuple(operator.words for operator in field.spec.operators)


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _render_one(filter_: Filter) -> str:
    start = f"{render_field(filter_.field)} {filter_.operator.words}"
    if not filter_.values:
        return start
    return f"{start} {', '.join(render_value(filter_.field.spec.kind, value) for value in filter_.values)}"


def _spellings() -> list[tuple[re.Pattern[str], str]]:
    """Every spelling of an operator, longest first: `is not set` is not `is` with a value."""
    words = sorted({op.words for op in Operator if op.words[0].isalpha()}, key=len, reverse=True)
    symbols = {op.words for op in Operator if not op.words[0].isalpha()} | {op.symbol for op in Operator if op.symbol}
    spelled = [(re.compile(r"\s+".join(word.split()) + r'(?=\s|"|$)', re.IGNORECASE), word) for word in words]
    return spelled + [(re.compile(re.escape(symbol)), symbol) for symbol in sorted(symbols, key=len, reverse=True)]


_SPELLINGS: Final = _spellings()


def _operator_spelled(field: Field, spelling: str) -> Operator | None:
    """The operator of this field that is spelled so."""
    for operator in field.spec.operators:
        if spelling in (operator.words, operator.symbol):
            return operator
    aliases = {"is": Operator.EQUAL, "is not": Operator.NOT_EQUAL}
    operator_or_none = aliases.get(spelling)
    return operator_or_none if operator_or_none in field.spec.operators else None


class _Reader:
    """Reads one text from left to right; `spot` says how far it came."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.position = 0
        self.spot = Spot(Part.FIELD, 0)
        self.starts: list[int] = []

    def filters(self) -> tuple[Filter, ...]:
        found: list[Filter] = []
        self._skip_space()
        while self.position < len(self.text) or found:
            if len(found) == MAX_FILTERS:
                raise self._error(f"there may be {MAX_FILTERS} filters")
            self.starts.append(self.position)
            found.append(self._filter())
            self._skip_space()
            if self.position == len(self.text):
                break
            match = _AND.match(self.text, self.position)
            if match is None:
                self.spot = Spot(Part.AND, self.position)
                raise self._error("here another filter may follow, after the word and", "and")
            self.position = match.end()
            self._skip_space()
        return tuple(found)

    def _filter(self) -> Filter:
        opposite = self.text.startswith("-", self.position)
        start = self.position
        self.position += opposite
        field = self._field()
        had_space = self._skip_space()
        self.spot = Spot(Part.OPERATOR, self.position, field)
        if opposite and (self.position == len(self.text) or (had_space and _AND.match(self.text, self.position))):
            if Operator.IS_NOT_SET not in field.spec.operators:
                raise self._error(f"{field.label} is always set", *operators_of(field))
            return Filter(field, Operator.IS_NOT_SET)
        operator = self._operator(field)
        filter_ = Filter(field, operator, self._values(field, operator))
        if not opposite:
            return filter_
        negated = filter_.negated()
        if negated is None:
            raise self._error(f'there is no opposite of "{operator.words}" here; leave out the -', at=start)
        return negated

    def _field(self) -> Field:
        self.spot = Spot(Part.FIELD, self.position)
        match = _NAME.match(self.text, self.position)
        typed = match[0] if match else ""
        name = typed.lower()
        if match is None or name not in FIELDS:
            close = difflib.get_close_matches(name, FIELDS, n=3) or list(FIELDS)
            offered = tuple(f"{field}:" if field == METADATA else field for field in close)
            message = f'there is no field "{typed[:50]}"' if typed else "a filter begins with a field"
            raise self._error(f"{message}; {_would_fit(offered)}", *offered)
        self.position = match.end()
        if name != METADATA:
            return Field(name)
        if not self.text.startswith(":", self.position):
            raise self._error("metadata needs a key, as in metadata:plan", ":")
        self.position += 1
        self.spot = Spot(Part.KEY, self.position)
        if self.text.startswith('"', self.position):
            key = self._string()
        else:
            key_match = _KEY.match(self.text, self.position)
            key = key_match[0] if key_match else ""
            self.position += len(key)
        if not key or len(key) > MAX_VALUE_CHARS or not _encodes(key):
            raise self._error("metadata needs a key, as in metadata:plan", "<key>", at=self.spot.start)
        return Field(METADATA, key)

    def _operator(self, field: Field) -> Operator:
        for pattern, spelling in _SPELLINGS:
            match = pattern.match(self.text, self.position)
            if match is None:
                continue
            operator = _operator_spelled(field, spelling)
            if operator is None:
                # `>` may fit where `>=` does not, but nobody who typed `is set` meant `is`.
                raise self._error(f'{field.name} does not go with "{spelling}"', *operators_of(field))
            self.position = match.end()
            return operator
        raise self._error(f"after {field.name} follows how it compares", *operators_of(field))

    def _values(self, field: Field, operator: Operator) -> tuple[str | int | Scalar, ...]:
        if operator.arity is Arity.NONE:
            return ()
        values: list[str | int | Scalar] = []
        while True:
            if len(values) == MAX_VALUES:
                raise self._error(f"a list holds at most {MAX_VALUES} values")
            values.append(self._value(field, operator))
            if operator.arity is Arity.ONE:
                return tuple(values)
            self._skip_space()
            if not self.text.startswith(",", self.position):
                return tuple(values)
            self.position += 1

    def _value(self, field: Field, operator: Operator) -> str | int | Scalar:
        self._skip_space()
        start = self.position
        self.spot = Spot(Part.VALUE, start, field, operator)
        quoted = self.text.startswith('"', start)
        if quoted:
            typed = self._string()
        else:
            end = (_LISTED_END if operator.arity is Arity.MANY else _VALUE_END).search(self.text, start)
            typed = self.text[start : end.start() if end else len(self.text)].rstrip()
            self.position = start + len(typed)
        if not quoted and (not typed or _AND.match(self.text, start)):
            raise self._error(f'after "{operator.words}" follows a value', *_expected(field, operator), at=start)
        try:
            value = _converted(field, operator, typed, quoted=quoted)
            problem = Filter.problem_of(field, operator, value)
        except ValueError as error:
            problem = str(error)
        if problem:
            raise self._error(problem, *_expected(field, operator), at=start)
        return value

    def _string(self) -> str:
        try:
            text, self.position = _STRINGS.raw_decode(self.text, self.position)
        except json.JSONDecodeError as error:
            unfinished = error.msg.startswith("Unterminated")
            message = "the quote that opens here is never closed" if unfinished else "this is no escape of JSON"
            raise self._error(message, '"' if unfinished else '\\" \\\\ \\n \\t \\uXXXX', at=error.pos) from None
        return str(text)

    def _skip_space(self) -> bool:
        match = _SPACE.match(self.text, self.position)
        before = self.position
        self.position = match.end() if match else before
        return self.position > before

    def _error(self, message: str, *expected: str, at: int | None = None) -> QueryError:
        return QueryError(message, position=self.position if at is None else at, expected=expected)


def _converted(field: Field, operator: Operator, typed: str, *, quoted: bool) -> str | int | Scalar:
    kind = field.spec.kind
    if kind is Kind.DURATION:
        return units.read_duration(typed)
    if kind is Kind.TIME:
        return units.read_time(typed)
    if kind is Kind.COUNT:
        if _COUNT.fullmatch(typed) is None:
            raise ValueError(f"{field.name} is compared with a whole number")
        return int(typed)
    if kind is Kind.CHOICE:
        return typed.lower()
    if kind is Kind.JSON and not quoted and _compares_as_json(operator) and reads_as_scalar(typed):
        return Scalar(typed)
    return typed


def _compares_as_json(operator: Operator) -> bool:
    return operator in CHOICE or operator.words[0] in "<>"


def _expected(field: Field, operator: Operator) -> tuple[str, ...]:
    kind = field.spec.kind
    if kind is Kind.CHOICE:
        return tuple(STATUSES)
    if kind is Kind.JSON and not _compares_as_json(operator):
        return ("<text>",)
    return {
        Kind.DURATION: ("<a duration, such as 250ms or 1.5s>",),
        Kind.TIME: ("<a time, such as 2026-11-20 or 2026-11-20T10:00:00Z>",),
        Kind.COUNT: ("<a whole number>",),
        Kind.JSON: ("<a number>",) if operator.words[0] in "<>" else ("<text>", "<a number>", "true", "false", "null"),
    }.get(kind, ("<text>",))


def _encodes(text: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in text)


def _would_fit(offered: tuple[str, ...]) -> str:
    if len(offered) == len(FIELDS):
        return "the fields are " + ", ".join(offered)
    return "did you mean " + " or ".join(offered) + "?"
