"""Editing the spans that own identity, where they stand: the ground that the optional stages beside the rule build on.

A stage says which attribute keys it seeks. The framing is hopped by length as the rule does it, one search for each key
tells which spans can hold one of them, and only these are opened. A span that owns identity (a root span, or under the
policy an entry span) is given to the stage, which says what shall stand under which key; from every other span the keys
that only an owner may carry are removed. Length prefixes around an edit are written anew; all other bytes are copied as
they came, or, where nothing has to change, not even that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from functools import lru_cache, reduce
from operator import or_
from types import MappingProxyType
from typing import Final, NamedTuple, TypeAlias

from opentelemetry.proto.common.v1.common_pb2 import AnyValue

from neatlogs_processor.core.attributes import (
    Found,
    Identity,
    encode_attribute,
    judge,
    usual_string,
)
from neatlogs_processor.core.overrides import describe, service_name
from neatlogs_processor.core.parents import is_child
from neatlogs_processor.core.policy import (
    MAX_REPORTED_OVERRIDES,
    EndUserPolicy,
    Override,
    Place,
    is_entry_span,
    is_root_span,
    names_somebody,
)
from neatlogs_processor.core.schema import (
    END_USER_ID,
    LEN,
    REQUEST_RESOURCE_SPANS,
    RESOURCE_SPANS_RESOURCE,
    RESOURCE_SPANS_SCOPE_SPANS,
    SCOPE_SPANS_SPANS,
    SPAN,
    in_namespace,
)
from neatlogs_processor.core.sought import Scanned, Search, Sought, begins_as_child, scan_span
from neatlogs_processor.core.strict import canonical, read_key_value, text_of
from neatlogs_processor.core.wire import Editor, Field, encode_len, fields, read_field, read_varint
from neatlogs_processor.errors import MalformedOtlpError

_SPAN: Final = SCOPE_SPANS_SPANS << 3 | LEN


class SpanAttributes:
    """The attributes of one span under the keys that a stage seeks. Values are decoded when they are asked for."""

    def __init__(self, buf: bytes, found: list[Found]) -> None:
        self._buf = buf
        self._by_key: dict[bytes, list[Found]] = {}
        for attribute in found:
            self._by_key.setdefault(attribute[4], []).append(attribute)

    def __iter__(self) -> Iterator[bytes]:
        """The keys that stand there, each once, in the order of the wire."""
        return iter(self._by_key)

    def __contains__(self, key: bytes) -> bool:
        return key in self._by_key

    def values(self, key: bytes) -> Iterator[AnyValue]:
        """What stands under a key, in the order of the wire: more than one value where it stands there more than once.

        Raises:
            MalformedOtlpError: The official reader cannot read it.
        """
        for _, _, start, end, _, plain in self._by_key.get(key, ()):
            yield read_key_value(self._buf[start:end] if plain is None else plain).value

    def usable(self, key: bytes) -> str | None:
        """The first value under a key that can be an id, as the rule has it: text that is not blank, or an int.

        Raises:
            MalformedOtlpError: The official reader cannot read it.
        """
        for _, _, start, end, _, plain in self._by_key.get(key, ()):
            text = usual_string(self._buf, start, end, key) if plain is None else None
            if text is None:
                text = text_of(END_USER_ID, read_key_value(self._buf[start:end] if plain is None else plain).value)
            if text is not None and names_somebody(text):
                return text
        return None

    def identity(self) -> Identity:
        """What the identity attributes among these amount to, by the rule for root spans.

        Raises:
            MalformedOtlpError: One of them cannot be read.
        """
        return judge(self._buf, (one for key, found in self._by_key.items() if in_namespace(key) for one in found))


class Changes(NamedTuple):
    """What shall become of the attributes of a span.

    Attributes:
        put: Texts by key, which UTF-8 can hold. Each stands there once afterwards, in the place of the first attribute
            with that key, or behind all other fields; of a key that is not sought it is not seen that it stands there.
        removed: Keys, all sought ones, that are not there afterwards. A set, because a span may hold very many.
    """

    put: Mapping[bytes, str] = MappingProxyType({})
    removed: AbstractSet[bytes] = frozenset()


Edit: TypeAlias = Callable[[SpanAttributes], "Changes | None"]
"""Says what becomes of a span that owns identity and has at least one attribute under a sought key."""


@dataclass
class Edited:
    """A request after a stage.

    Attributes:
        body: The request. The very same object as the input where nothing had to change.
        changed: How many spans that own identity had to change.
        removed: How many attributes were removed from spans that own no identity.
        overrides: At most `MAX_REPORTED_OVERRIDES` descriptions of these, in the order of the request.
        invalid: How many attributes the stage has removed from owners because of their value; the stage says it.
    """

    body: bytes
    changed: int = 0
    removed: int = 0
    overrides: list[Override] = field(default_factory=list)
    invalid: int = 0


def edit_owners(
    body: bytes,
    policy: EndUserPolicy,
    *,
    seek: Sought,
    edit: Edit,
    strip: Sought | None = None,
    beside: Sought | None = None,
) -> Edited:
    """Edit the spans of a serialised `ExportTraceServiceRequest` that own identity.

    Takes time in proportion to the request and to the number of needles, whatever it holds.

    Args:
        body: The request in protobuf encoding, uncompressed; before or after the rule.
        policy: Which spans own identity.
        seek: A span that owns identity is given to `edit` if it has an attribute under one of these keys.
        edit: Returns what changes on it, or None. Has to leave alone what it has edited before, so that editing
            twice equals editing once.
        strip: Keys that are removed from all other spans.
        beside: Keys that `edit` is shown too, on spans that are given to it for the others'. Searching whole requests
            is what costs; these are searched for on owners alone.

    Raises:
        MalformedOtlpError: The framing around an occurrence of a key does not add up, or a container that has to be
            edited cannot be read.
        RequestTooLargeError: It would leave more than `wire.MAX_GROWTH` bytes larger than it came. Of what this
            function does itself nothing else is ever raised.
    """
    try:
        return _Editing(body, policy, seek, edit, strip or Sought(), beside or Sought()).run()
    except IndexError as error:
        # The fast loop reads tags and lengths without asking where the request ends.
        raise MalformedOtlpError("the request ends in the middle of a field") from error


@lru_cache(maxsize=64)
def _together(*some: Sought) -> Sought:
    # Stages ask with the same few at every request.
    return reduce(or_, some)


class _Editing:
    """The work on one request."""

    def __init__(
        self, body: bytes, policy: EndUserPolicy, seek: Sought, edit: Edit, strip: Sought, beside: Sought
    ) -> None:
        self._body = body
        self._policy = policy
        self._edit = edit
        self._strip = strip
        self._editor = Editor(body)
        self._search = Search(body, _together(seek, strip))
        self._all = _together(seek, strip, beside)
        self._edited = Edited(body)
        # What is known of the resource at hand.
        self._resources: list[Field] = []
        self._service: str | None = None
        self._entry = False

    def run(self) -> Edited:
        body, search = self._body, self._search
        if search.at_or_after(0) < len(body):
            for outer in fields(body, 0, len(body), refuse_groups=True):
                is_resource_spans = outer.number == REQUEST_RESOURCE_SPANS and outer.wire_type == LEN
                if is_resource_spans and search.at_or_after(outer.start) < outer.end:
                    self._resource_spans(outer)
            self._edited.body = self._editor.result()
        return self._edited

    def _resource_spans(self, outer: Field) -> None:
        body, search, editor = self._body, self._search, self._editor
        inside = [one for one in fields(body, outer.start, outer.end, refuse_groups=True) if one.wire_type == LEN]
        self._resources = [one for one in inside if one.number == RESOURCE_SPANS_RESOURCE]
        self._service = None
        self._entry = self._policy.roots == "entry" and self._service_name() in self._policy.entry_services
        mark = editor.open()
        for number, _, _, header, start, end in inside:
            if number == RESOURCE_SPANS_SCOPE_SPANS and search.at_or_after(start) < end:
                inner = editor.open()
                self._scope_spans(start, end)
                editor.close(inner, header, start, end)
        editor.close(mark, outer.header, outer.start, outer.end)

    def _scope_spans(self, pos: int, end: int) -> None:
        body, search = self._body, self._search
        while pos < end:
            header = pos + 1
            if body[pos] == _SPAN:
                length, start = read_varint(body, header, end)
                pos = start + length
                if pos > end:
                    raise MalformedOtlpError(f"the span at byte {header - 1} runs past the scope that holds it")
            else:
                number, wire_type, _, header, start, pos = read_field(body, pos, end, refuse_groups=True)
                if number != SCOPE_SPANS_SPANS or wire_type != LEN:
                    continue
            if search.hit < pos and search.at_or_after(start) < pos:
                self._span(header, start, pos)

    def _span(self, header: int, start: int, end: int) -> None:
        """Deal with a span that holds an occurrence of a key."""
        editor = self._editor
        buf = editor.buf
        child = begins_as_child(buf, start, end)
        if child and not self._strip and not self._entry and is_child(buf[start:end]):
            return
        scanned = scan_span(buf, start, end, self._search if child else Search(buf, self._all, end))
        if not scanned.found:
            return
        owns = self._owns(scanned)
        if scanned.ambiguous:
            # Where nothing would be done to the span, nobody asks it to be readable.
            if owns or any(attribute[4] in self._strip for attribute in scanned.found):
                plain = canonical(SPAN, buf[start:end])
                inner = Editor(plain)
                again = scan_span(plain, 0, len(plain), Search(plain, self._all))
                self._attributes(inner, again, 0, len(plain))
                # Once more, because the official writer puts fields of a wrong wire type behind what was just added.
                editor.put(header, start, end, canonical(SPAN, inner.result()))
            return
        if owns and child:
            scanned = scan_span(buf, start, end, Search(buf, self._all, end))
        mark = editor.open()
        self._attributes(editor, scanned, start, end)
        editor.close(mark, header, start, end)

    def _owns(self, scanned: Scanned) -> bool:
        return is_root_span(scanned.parent) or (self._entry and is_entry_span(scanned.parent, scanned.flags))

    def _attributes(self, editor: Editor, scanned: Scanned, start: int, end: int) -> None:
        """Deal with the attributes of the unambiguous span in `editor.buf[start:end]`."""
        found = scanned.found
        if self._owns(scanned):
            changes = self._edit(SpanAttributes(editor.buf, found))
            if changes is not None:
                self._edited.changed += 1
                _apply(editor, found, changes, end)
        elif self._strip:
            removed = []
            for attribute in found:
                tag, header, first, last, key, plain = attribute
                if key in self._strip:
                    editor.replace(tag, last)
                    removed.append(attribute)
                elif plain is not None:
                    editor.put(header, first, last, plain)
            self._report(removed, editor.buf, start, end)

    def _report(self, removed: list[Found], buf: bytes, start: int, end: int) -> None:
        edited = self._edited
        edited.removed += len(removed)
        room = MAX_REPORTED_OVERRIDES - len(edited.overrides)
        if room and removed:
            edited.overrides += describe(Place.CHILD, removed[:room], buf, start, end, self._service_name())

    def _service_name(self) -> str:
        if self._service is None:
            self._service = service_name(self._body, self._resources)
        return self._service


def _apply(editor: Editor, found: list[Found], changes: Changes, end: int) -> None:
    """Edit the attributes of a span that ends at `end`; those that readers could disagree about become plain."""
    buf = editor.buf
    put = changes.put
    done = set()
    for tag, header, start, after, key, plain in found:
        if key in put and key not in done:
            done.add(key)
            if plain is not None or usual_string(buf, start, after, key) != put[key]:
                editor.put(header, start, after, encode_attribute(key, put[key]))
        elif key in done or key in changes.removed:
            editor.replace(tag, after)
        elif plain is not None:
            editor.put(header, start, after, plain)
    added = b"".join(
        encode_len(SPAN.attributes, encode_attribute(key, text)) for key, text in put.items() if key not in done
    )
    if added:
        editor.replace(end, end, added)
