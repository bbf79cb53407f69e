"""What one span of a plain trace says, written as attributes, status and events; see `core/plain_fields.py`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from neatlogs_processor.core import schema
from neatlogs_processor.core.plain_attributes import Attributes, Budget, put_json, scalar
from neatlogs_processor.core.plain_fields import (
    ERROR_WORDS,
    FIELDS,
    KIND_OF_CHILD,
    KIND_OF_ROOT,
    KINDS,
    OK_WORDS,
    UNSET_WORDS,
)
from neatlogs_processor.core.plain_json import FieldError, JsonReader, Value
from neatlogs_processor.core.policy import names_somebody

_KEYS: Final = {one.name: one.attributes for one in FIELDS}
_NAMES: Final = {one.name: tuple(name.encode() for name in (one.name, *one.aliases)) for one in FIELDS}
_TOKENS: Final = {name: _KEYS[f"tokens.{name}"] for name in ("prompt", "completion", "total")}
_CONTENT: Final = (b"content", b"text", b"page_content", b"pageContent")
_DOCUMENT: Final = frozenset({*_CONTENT, b"id", b"score", b"metadata"})
_END_USER_ID, _END_USER_METADATA = schema.END_USER_ID.decode(), schema.END_USER_METADATA.decode()


class SpanWriter:
    """Writes one span.

    Args:
        reader: The text.
        budget: What is written is taken from it.
        span: The span, with its ids and times.
        fields: What the text says of it, by field; none is null.
        path: What messages put before the names of fields.
    """

    def __init__(
        self, reader: JsonReader, budget: Budget, span: Span, fields: Mapping[bytes, Value], path: str
    ) -> None:
        self._reader = reader
        self._budget = budget
        self._span = span
        self._fields = fields
        self._path = path
        self._to = Attributes(span.attributes, budget)

    def write(self, *, is_root: bool) -> None:
        """Write what it says.

        Raises:
            RequestTooLargeError: There is more than the budget allows.
            MalformedOtlpError: A field holds what it must not.
        """
        name = self._text("name") or ""
        self._budget.spend(len(name))
        self._span.name = name
        given = self._given()
        if is_root:
            self._owned_identity(given)
        else:
            self._claimed_identity(given)
        for key, value in given.items():
            if not schema.in_namespace(key.encode()):
                put_json(self._to, key, value, self._reader, f"{self._path}attributes")
        self._kind(is_root=is_root)
        self._content()
        self._numbers()
        self._documents()
        self._status()
        self._logs()
        if is_root:
            self._of_the_trace()

    # What it may say of identity.

    def _given(self) -> dict[str, Value]:
        """Return the `attributes`, without those that are null."""
        value = self._fields.get(b"attributes")
        given: dict[str, Value] = {}
        if value is not None:

            def take(name: bytes, member: Value) -> None:
                if not self._reader.is_null(member):
                    given[name.decode()] = member

            self._object("attributes", value)
            self._reader.members(value, take)
        return given

    def _owned_identity(self, given: Mapping[str, Value]) -> None:
        """Write the identity of the root: that of `attributes`, else that of the fields; each with its own metadata."""
        of_attributes = given.get(_END_USER_ID)
        of_fields = next((value for value in self._claims("endUserId") if self._says_somebody(value)), None)
        metadata = next(iter(self._claims("endUserMetadata")), None)
        keep_given = True
        if of_attributes is None or not self._says_somebody(of_attributes):
            if of_fields is not None:
                self._to.add(_END_USER_ID, *self._identity_value(_END_USER_ID, of_fields))
                of_attributes = None
                keep_given = metadata is None
        elif of_fields is not None and self._reader.readable(of_fields) != self._reader.readable(of_attributes):
            metadata = None
        for key, value in given.items():
            if not schema.in_namespace(key.encode()):
                continue
            if (key == _END_USER_ID and of_attributes is None) or (key == _END_USER_METADATA and not keep_given):
                continue
            self._to.add(key, *self._identity_value(key, value))
        if metadata is not None and _END_USER_METADATA not in self._to:
            self._to.add(_END_USER_METADATA, *self._identity_value(_END_USER_METADATA, metadata))

    def _claimed_identity(self, given: Mapping[str, Value]) -> None:
        """Write what a child says of an end user, all of it, so that the rule removes and counts it."""
        for key, value in given.items():
            if schema.in_namespace(key.encode()):
                self._to.add(key, *self._identity_value(key, value))
        for field, key in (("endUserId", _END_USER_ID), ("endUserMetadata", _END_USER_METADATA)):
            for value in self._claims(field):
                self._to.add(key, *self._identity_value(key, value))

    def _claims(self, field: str) -> list[Value]:
        return [self._fields[name] for name in _NAMES[field] if name in self._fields]

    def _says_somebody(self, value: Value) -> bool:
        """Whether an id is there at all, of use or not: blank text is none, and true is one that the rule refuses."""
        return self._reader.first(value.start) != b'"' or names_somebody(self._reader.string(value))

    def _identity_value(self, key: str, value: Value) -> tuple[AnyValue, int]:
        """Return an identity attribute's value and size. What the rule refuses keeps its type, and is refused."""
        reader, first = self._reader, self._reader.first(value.start)
        if first == b'"' or (first == b"{" and key == _END_USER_METADATA):
            text = reader.readable(value)
            return AnyValue(string_value=text), len(text)
        refused = AnyValue()
        if first == b"{":
            refused.kvlist_value.SetInParent()
        elif first == b"[":
            refused.array_value.SetInParent()
        else:
            return scalar(value, reader, f"{self._path}{key}"), 0
        return refused, 0

    # Everything else.

    def _kind(self, *, is_root: bool) -> None:
        kind = (self._text("kind") or "").strip()
        if not kind:
            kind = next(
                (kind for names, kind in KINDS if any(name.encode() in self._fields for name in names)),
                KIND_OF_ROOT if is_root else KIND_OF_CHILD,
            )
        lower, capitals = _KEYS["kind"]
        self._to.put(lower, kind.lower())
        self._to.put(capitals, kind.upper())

    def _content(self) -> None:
        for field in ("input", "output"):
            self._put_content(field, _KEYS[field])
        query, *instead = _KEYS["query"]
        if (text := self._text("query")) is not None:
            self._to.put(query, text)
            self._put_content("query", instead)
        for field in ("model", "tool_name"):
            if (text := self._text(field)) is not None:
                self._to.put_all(_KEYS[field], text)
        if b"metadata" in self._fields:
            self._to.put_all(_KEYS["metadata"], self._reader.written(self._fields[b"metadata"]))

    def _put_content(self, field: str, keys: Iterable[str]) -> None:
        value = self._fields.get(field.encode())
        value_key, type_key = keys
        if value is None or value_key in self._to:
            return
        plain = self._reader.first(value.start) == b'"'
        self._to.put(value_key, self._reader.readable(value))
        self._to.put(type_key, "text/plain" if plain else "application/json")

    def _numbers(self) -> None:
        reader, path = self._reader, self._path
        if (tokens := self._fields.get(b"tokens")) is not None:
            self._object("tokens", tokens)
            reader.members(tokens, self._token)
        if (score := self._fields.get(b"score")) is not None:
            self._to.put_all(_KEYS["score"], float(reader.number(score, f"{path}score")))
        if (passed := self._fields.get(b"passed")) is not None:
            if reader.first(passed.start) not in b"tf":
                raise FieldError(f"{path}passed", "true or false")
            self._to.put_all(_KEYS["passed"], "pass" if reader.first(passed.start) == b"t" else "fail")

    def _token(self, name: bytes, value: Value) -> None:
        keys = _TOKENS.get(name.decode())
        if keys is None or self._reader.is_null(value):
            return
        path = f"{self._path}tokens.{name.decode()}"
        count = self._reader.number(value, path)
        if not (0 <= count < 2**63 and count == int(count)):
            raise FieldError(path, "a whole number, not below zero,")
        self._to.put_all(keys, int(count))

    def _documents(self) -> None:
        value = self._fields.get(b"documents")
        if value is None:
            return
        if self._reader.first(value.start) != b"[":
            raise FieldError(f"{self._path}documents", "an array")
        number = 0

        def take(element: Value) -> None:
            nonlocal number
            if not self._reader.is_null(element):
                self._document(number, element)
            number += 1

        self._reader.elements(value, take)

    def _document(self, number: int, value: Value) -> None:
        reader = self._reader
        prefix = f"retrieval.documents.{number}.document."
        known: dict[bytes, Value] = {}
        others = False

        def take(name: bytes, member: Value) -> None:
            nonlocal others
            if name not in _DOCUMENT:
                others = True
            elif not reader.is_null(member):
                known[name] = member

        if reader.first(value.start) == b"{":
            reader.members(value, take)
        content = next((known[name] for name in _CONTENT if name in known), None)
        self._to.put(f"{prefix}content", reader.readable(value if content is None else content))
        if b"id" in known:
            self._to.put(f"{prefix}id", reader.readable(known[b"id"]))
        if b"score" in known:
            path = f"{self._path}documents[{number}].score"
            self._to.put(f"{prefix}score", float(reader.number(known[b"score"], path)))
        if b"metadata" in known:
            self._to.put(f"{prefix}metadata", reader.written(known[b"metadata"]))
        elif others and content is not None:
            self._to.put(f"{prefix}metadata", reader.written(value))

    def _status(self) -> None:
        status = self._span.status
        said = (self._text("status") or "").strip()
        word = said.lower()
        if word in ERROR_WORDS:
            status.code = Status.STATUS_CODE_ERROR
        elif word in OK_WORDS:
            status.code = Status.STATUS_CODE_OK
        elif word not in UNSET_WORDS:
            self._to.put_all(_KEYS["status"], said)
        error = self._text("error")
        if error and error != "false":
            self._budget.spend(len(error), 0)
            status.code = Status.STATUS_CODE_ERROR
            status.message = error

    def _logs(self) -> None:
        value = self._fields.get(b"logs")
        if value is None:
            return
        if self._reader.first(value.start) != b"[":
            raise FieldError(f"{self._path}logs", "an array")
        self._reader.elements(value, self._log)

    def _log(self, value: Value) -> None:
        reader = self._reader
        path = f"{self._path}logs[{len(self._span.events)}]"
        known: dict[bytes, Value] = {}

        def take(name: bytes, member: Value) -> None:
            if name in (b"message", b"level", b"timestamp") and not reader.is_null(member):
                known[name] = member

        if reader.first(value.start) != b"{":
            raise FieldError(path, "an object")
        reader.members(value, take)
        moment = self._span.start_time_unix_nano
        if b"timestamp" in known:
            moment = reader.time(known[b"timestamp"], f"{path}.timestamp")
        self._budget.spend(0)
        event = self._span.events.add(name="log", time_unix_nano=moment)
        to = Attributes(event.attributes, self._budget)
        for name in (b"level", b"message"):
            if name in known:
                to.put(name.decode(), reader.readable(known[name]))

    def _of_the_trace(self) -> None:
        session = next((text for value in self._claims("sessionId") if (text := self._session(value)).strip()), None)
        if session is not None:
            self._to.put_all(_KEYS["sessionId"], session)
        tags = self._fields.get(b"tags")
        if tags is None:
            return
        if self._reader.first(tags.start) == b"[":
            texts: list[str] = []
            self._reader.elements(tags, lambda element: texts.append(self._reader.readable(element)))
            self._to.put_all(_KEYS["tags"], ",".join(texts))
        else:
            self._to.put_all(_KEYS["tags"], self._reader.readable(tags))

    def _session(self, value: Value) -> str:
        """Return the text of a session id.

        Raises:
            FieldError: It is neither text nor a whole number.
        """
        if self._reader.first(value.start) == b'"':
            return self._reader.string(value)
        path = f"{self._path}sessionId"
        number = None if self._reader.first(value.start) in b"tf{[" else self._reader.number(value, path)
        if not isinstance(number, int):
            raise FieldError(path, "text or a whole number")
        return str(number)

    def _text(self, field: str) -> str | None:
        value = self._fields.get(field.encode())
        return None if value is None else self._reader.readable(value)

    def _object(self, field: str, value: Value) -> None:
        if self._reader.first(value.start) != b"{":
            raise FieldError(f"{self._path}{field}", "an object")
