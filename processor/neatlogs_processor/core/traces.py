"""The rule on the bytes of an OTLP trace request: one end user per trace, and the root owns it.

How it stays fast: the framing (request, resources, scopes, spans) is hopped by length, one search for the namespace
tells which containers can hold an identity attribute, and only these are opened. What has to go is cut out where it
stands, and the length prefixes around it are written anew; all other bytes are copied as they came, or, where nothing
has to change, not even that.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from neatlogs_processor.core.attributes import Found, encode_attribute, find_in, judge, usual_owner
from neatlogs_processor.core.hopping import Held, hop_spans
from neatlogs_processor.core.overrides import describe, service_name
from neatlogs_processor.core.policy import (
    MAX_REPORTED_OVERRIDES,
    Counts,
    EndUserPolicy,
    Enforced,
    Override,
    Place,
    is_entry_span,
    is_root_span,
    names_somebody,
)
from neatlogs_processor.core.regular_spans import AT_ONCE, Run, attributes_of, prove_regular
from neatlogs_processor.core.schema import (
    END_USER_ID,
    EVENT,
    LEN,
    LINK,
    NAMESPACE,
    REQUEST_RESOURCE_SPANS,
    RESOURCE,
    RESOURCE_SPANS_RESOURCE,
    RESOURCE_SPANS_SCOPE_SPANS,
    SCOPE,
    SPAN,
    SPAN_EVENTS,
    Message,
    in_namespace,
)
from neatlogs_processor.core.spans import (
    NO_HIT,
    Parts,
    find_namespace,
    scan_span,
)
from neatlogs_processor.core.strict import canonical
from neatlogs_processor.core.wire import Editor, Field, encode_len, fields
from neatlogs_processor.errors import MalformedOtlpError

_PLACES: Final = tuple(Place)
_CHILD, _EVENT, _LINK, _SCOPE = range(len(_PLACES))


def enforce_traces(body: bytes, policy: EndUserPolicy) -> Enforced:
    """Enforce the rule on a serialised `ExportTraceServiceRequest`.

    Args:
        body: The request in protobuf encoding, uncompressed.
        policy: Which spans own identity.

    Returns:
        The request after the rule, and what was found. `body` itself where nothing had to change. Enforcing the result
        again changes nothing.

    Raises:
        MalformedOtlpError: The framing does not add up, or a container that has to be edited cannot be read.
        RequestTooLargeError: It would leave more than `wire.MAX_GROWTH` bytes larger than it came. Nothing else is ever
            raised.
    """
    try:
        return _Enforcement(body, policy).run()
    except IndexError as error:
        # The fast loops read tags and lengths without asking where the request ends.
        raise MalformedOtlpError("the request ends in the middle of a field") from error


class _Cleared(NamedTuple):
    """Identity attributes that were removed from the message in `buf[start:end]`."""

    buf: bytes
    start: int
    end: int
    removed: list[Found]


class _Enforcement:
    """The work on one request."""

    def __init__(self, body: bytes, policy: EndUserPolicy) -> None:
        self._body = body
        self._policy = policy
        self._editor = Editor(body)
        self._counts = Counts()
        # By place, in the order of `Place`: an enum member is a slow key.
        self._ignored = [0] * len(_PLACES)
        self._overrides: list[Override] = []
        self._not_reported = 0
        # The first occurrence of the namespace that is not yet dealt with.
        self._hit = find_namespace(body, 0)
        # What is known of the resource at hand.
        self._resources: list[Field] = []
        self._service: str | None = None
        self._default: tuple[str | None, str | None] | None = None
        self._entry = False

    def run(self) -> Enforced:
        body = self._body
        for field in fields(body, 0, len(body), refuse_groups=self._hit != NO_HIT):
            if field.number == REQUEST_RESOURCE_SPANS and field.wire_type == LEN:
                self._resource_spans(field)
        self._counts.overrides = dict(zip(_PLACES, self._ignored, strict=True))
        return Enforced(self._editor.result(), self._counts, self._overrides, self._not_reported)

    def _holds_hit(self, start: int, end: int) -> bool:
        if self._hit < start:
            self._hit = find_namespace(self._body, start)
        return self._hit < end

    def _resource_spans(self, outer: Field) -> None:
        editor = self._editor
        held = self._holds_hit(outer.start, outer.end)
        resources = []
        scopes = []
        for field in fields(self._body, outer.start, outer.end, refuse_groups=held):
            if field.wire_type == LEN:
                if field.number == RESOURCE_SPANS_RESOURCE:
                    resources.append(field)
                elif field.number == RESOURCE_SPANS_SCOPE_SPANS:
                    scopes.append(field)
        self._resources = resources
        self._service = None
        self._default = None
        self._entry = self._policy.roots == "entry" and self._service_name() in self._policy.entry_services
        mark = editor.open()
        if held and resources:
            # Before the spans, wherever it stands: they need its default.
            cleared = self._clear(editor, RESOURCE, resources)
            if cleared.removed:
                identity = judge(cleared.buf, cleared.removed)
                self._counts.defaults_moved += len(cleared.removed)
                self._counts.invalid += identity.invalid
                self._default = identity.as_default()
        for field in scopes:
            self._scope_spans(field)
        editor.close(mark, outer.header, outer.start, outer.end)

    def _scope_spans(self, outer: Field) -> None:
        editor = self._editor
        held = self._holds_hit(outer.start, outer.end)
        has_default = self._default is not None
        mark = editor.open()
        hopped = hop_spans(
            self._body,
            outer.start,
            outer.end,
            self._hit,
            # Where a default lands, the scope holds identity afterwards: it is judged as if it held it already.
            refuse_groups=held or has_default,
            hold_all=has_default or self._entry,
        )
        self._hit = hopped.hit
        self._counts.spans += hopped.spans
        self._counts.roots += hopped.roots
        for at in range(0, len(hopped.held), AT_ONCE):
            self._held_spans(hopped.held[at : at + AT_ONCE])
        if held and hopped.scopes:
            cleared = self._clear(editor, SCOPE, hopped.scopes)
            self._report(_SCOPE, cleared.removed, cleared.buf, cleared.start, cleared.end)
        editor.close(mark, outer.header, outer.start, outer.end)

    def _held_spans(self, held: list[Held]) -> None:
        """Deal with some spans that have to be opened."""
        body = self._body
        editor = self._editor
        runs = [(start, end, run) for _, start, end, _, run, _ in held if run is not None]
        regular = prove_regular(body, runs) if runs else None
        number = cut = 0
        for header, start, end, hit, run, child in held:
            if run is None or regular is None:
                self._span(scan_span(body, start, end, hit), header, start, end)
                continue
            if child or not is_root_span(regular.parent(number)):
                first, last, count = run
                editor.cut(header, start, end, first, last)
                if len(self._overrides) < MAX_REPORTED_OVERRIDES:
                    self._report(_CHILD, attributes_of(body, run), body, start, end)
                else:
                    cut += count
            else:
                self._regular_root(header, start, end, run)
            number += 1
        self._ignored[_CHILD] += cut
        self._not_reported += cut

    def _regular_root(self, header: int, start: int, end: int, run: Run) -> None:
        end_user_id = usual_owner(self._body, run[0], run[1])
        if end_user_id is not None and names_somebody(end_user_id):
            self._counts.roots += 1
            self._counts.roots_with_identity += 1
        else:
            self._span((b"", 0, attributes_of(self._body, run), [], False, NO_HIT), header, start, end)

    def _span(self, parts: Parts, header: int, start: int, end: int) -> None:
        """Deal with a span that has been read."""
        parent, flags, attributes, nested, ambiguous, _ = parts
        editor = self._editor
        owner = is_root_span(parent) or (self._entry and is_entry_span(parent, flags))
        if ambiguous and (attributes or nested or (owner and self._default is not None)):
            plain = canonical(SPAN, editor.buf[start:end])
            inner = Editor(plain)
            self._parts(inner, scan_span(plain, 0, len(plain), find_namespace(plain, 0)), 0, len(plain))
            # Once more, because the official writer puts fields of a wrong wire type behind what was just added.
            editor.put(header, start, end, canonical(SPAN, inner.result()))
        else:
            mark = editor.open()
            self._parts(editor, parts, start, end)
            editor.close(mark, header, start, end)

    def _parts(self, editor: Editor, parts: Parts, start: int, end: int) -> None:
        """Deal with the parts of the unambiguous span in `editor.buf[start:end]`."""
        parent, flags, attributes, nested, _, _ = parts
        buf = editor.buf
        taken = b""
        if is_root_span(parent) or (self._entry and is_entry_span(parent, flags)):
            self._counts.roots += 1
            if attributes or self._default is not None:
                taken = self._own(editor, attributes)
        elif attributes:
            for attribute in attributes:
                editor.replace(attribute[0], attribute[3])
            self._report(_CHILD, attributes, buf, start, end)
        for number, tag, header, inner, after, plain in nested:
            if number == SPAN.attributes:
                editor.put(header, inner, after, plain)
                continue
            message, place = (EVENT, _EVENT) if number == SPAN_EVENTS else (LINK, _LINK)
            cleared = self._clear(editor, message, [Field(number, LEN, tag, header, inner, after)])
            self._report(place, cleared.removed, buf, start, end)
        if taken:
            editor.replace(end, end, taken)

    def _own(self, editor: Editor, attributes: list[Found]) -> bytes:
        """Settle the identity of a root span. Returns the attributes that it takes from its resource, encoded."""
        identity = judge(editor.buf, attributes)
        taken = {} if self._default is None else identity.takes(self._default)
        self._counts.invalid += identity.invalid
        self._counts.roots_with_identity += identity.end_user_id is not None or END_USER_ID in taken
        for at, (tag, header, start, end, key, _) in enumerate(attributes):
            if at not in identity.winners or key in taken:
                editor.replace(tag, end)
            elif at in identity.rewritten:
                editor.put(header, start, end, identity.rewritten[at])
        return b"".join(encode_len(SPAN.attributes, encode_attribute(key, text)) for key, text in taken.items())

    def _clear(self, editor: Editor, message: Message, occurrences: list[Field]) -> _Cleared:
        """Remove the identity attributes of a message that owns none.

        Args:
            occurrences: Where the message stands in `editor.buf`. A singular message that stands twice is one message:
                protobuf merges the occurrences, in order.
        """
        buf = editor.buf
        if all(buf.find(NAMESPACE, field.start, field.end) < 0 for field in occurrences):
            return _Cleared(buf, 0, 0, [])
        first, *others = occurrences
        start, end = first.start, first.end
        if others:
            buf = b"".join(buf[field.start : field.end] for field in occurrences)
            start, end = 0, len(buf)
        found, ambiguous = find_in(buf, message, start, end)
        if not found:
            return _Cleared(buf, 0, 0, [])
        if not others and not ambiguous:
            mark = editor.open()
            removed = _cut(editor, found)
            editor.close(mark, first.header, start, end)
            return _Cleared(buf, start, end, removed)
        plain = canonical(message, buf[start:end])
        inner = Editor(plain)
        removed = _cut(inner, find_in(plain, message, 0, len(plain))[0])
        editor.put(first.header, first.start, first.end, inner.result())
        for field in others:
            editor.replace(field.tag, field.end)
        return _Cleared(plain, 0, len(plain), removed)

    def _report(self, place: int, removed: list[Found], buf: bytes, start: int, end: int) -> None:
        """Count ignored overrides, and describe them while there is room.

        Args:
            place: An index of `_PLACES`.
            buf: Holds the span that they stood on, or the scope, at `start` to `end`.
        """
        self._ignored[place] += len(removed)
        room = MAX_REPORTED_OVERRIDES - len(self._overrides)
        if len(removed) > room:
            self._not_reported += len(removed) - room
        if room == 0 or not removed:
            return
        self._overrides += describe(_PLACES[place], removed[:room], buf, start, end, self._service_name())

    def _service_name(self) -> str:
        if self._service is None:
            self._service = service_name(self._body, self._resources)
        return self._service


def _cut(editor: Editor, found: list[Found]) -> list[Found]:
    """Cut the identity attributes out, put the others into plain bytes. Returns the ones that were cut."""
    removed = []
    for attribute in found:
        tag, header, start, end, key, plain = attribute
        if plain is None or in_namespace(key):
            editor.replace(tag, end)
            removed.append(attribute)
        else:
            editor.put(header, start, end, plain)
    return removed
