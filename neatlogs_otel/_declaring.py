"""Declaring an end user at a span: which root takes it, and what is said when none does."""

from __future__ import annotations

from typing import Final

from opentelemetry import context as context_api
from opentelemetry import trace as trace_api
from opentelemetry.context import Context
from opentelemetry.trace import NonRecordingSpan, Span, SpanContext

from neatlogs_otel import _registry
from neatlogs_otel._capture import Mask
from neatlogs_otel._identity import (
    EndUser,
    IdArgument,
    MetadataArgument,
    end_user_from,
    identified,
    resolve,
)
from neatlogs_otel._open_root import Declaration, OpenRoot, Outcome
from neatlogs_otel._process_default import process_default
from neatlogs_otel._provider import is_set_up
from neatlogs_otel._registry import find_open_root
from neatlogs_otel._warnings import shown, warn_once
from neatlogs_otel.conventions import TAGS

_DECLARED: Final = context_api.create_key("neatlogs-otel-declared")

_CAUSES: Final = {
    Outcome.OUTRANKED: "another end user (or session) was named first, and the first stays. Name it in one place",
    Outcome.ENDED: "the root span of this trace has ended. Name the end user while it is open, "
    "or open a trace of its own for work that outlives it",
    Outcome.ENTRY: "this trace was started by another service, which owns the end user. Name it there, "
    'or use EndUserSpanProcessor(roots="entry") here',
    Outcome.UNKNOWN: "the root span of this trace is not known: its TracerProvider has no EndUserSpanProcessor. "
    "Add one with provider.add_span_processor(neatlogs_otel.EndUserSpanProcessor())",
    Outcome.AMBIGUOUS: "several requests under one incoming traceparent are open, and this span is not directly under "
    "one of them. Call set_end_user() in the request's handler itself",
}


def with_declaration(declared: Declaration) -> Context | None:
    """The context in which to start a span that declares; `None` (the current one) where there is nothing to say.

    The span processor reads it at the span's start, so that a root carries one identity from the beginning, instead of
    the default first. The context is never attached: children do not see it.
    """
    return None if declared.is_empty else context_api.set_value(_DECLARED, declared)


def declaration_in(context: Context | None) -> Declaration | None:
    """The declaration that a span is started with."""
    found = context_api.get_value(_DECLARED, context)
    return found if isinstance(found, Declaration) else None


def settle(
    span: Span, parent: SpanContext, declared: Declaration, *, place: str, enclosing: tuple[str, OpenRoot | None] | None
) -> OpenRoot | None:
    """Bring a declaration made by opening `span` to the root that owns the trace's identity.

    Args:
        span: The span just opened with `with_declaration(declared)`.
        parent: Its parent's span context, invalid for a root span.
        declared: What is declared.
        place: The call as a warning names it.
        enclosing: The open `trace()` or `@span` of the same trace around it (as a warning names it, and its local
            root), or `None`.

    Returns:
        The local root of the trace, where it is known.
    """
    if not span.is_recording():
        return None  # Sampled out: there is nothing to say it on.
    if not parent.is_valid:
        return _settle_root(span, declared)
    if enclosing is not None:
        outer, root = enclosing
        if not declared.is_empty:
            _say_nested(place, outer, root, declared)
            _keep_tags(span, declared)
        return root
    found = find_open_root(span.get_span_context(), parent, None)
    if isinstance(found, OpenRoot) and found.span_id == span.get_span_context().span_id and found.takes_identity:
        return found  # The span processor has settled it at the start.
    if not declared.is_empty:
        outcome = _declare(found, declared, parent.trace_id)
        if outcome in (Outcome.UNKNOWN, Outcome.ENDED) and parent.is_remote:
            outcome = Outcome.ENTRY
        _say(outcome, place, found)
        if outcome not in (Outcome.TAKEN, Outcome.REPEATED, Outcome.OUTRANKED):
            _keep_tags(span, declared)
    return found if isinstance(found, OpenRoot) else None


def set_end_user(end_user_id: IdArgument, end_user_metadata: MetadataArgument = None) -> bool:
    """Names the end user of the trace that is open here, when it becomes known after the trace was opened.

        user = authenticate(request)
        neatlogs.set_end_user(user.id, {"plan": user.plan})

    The identity goes to the trace's root span, if that is open in this process. An id that was named before by
    `trace()`, `@span` or `set_end_user()` stays; one of `identify()` or `init()` is replaced. Never raises.

    Args:
        end_user_id: `str`, `int`, `UUID`, or a callable that returns one. `None` and blank text name nobody.
        end_user_metadata: A JSON object, or a callable that returns one.

    Returns:
        Whether the trace carries this identity now. `False` comes with a warning that says why, except where the trace
        is not recorded (sampled out).
    """
    try:
        return _set_end_user(end_user_id, end_user_metadata)
    except Exception as error:  # noqa: BLE001  # an error of ours must not reach the application
        warn_once("internal", type(error), "%s in set_end_user().", type(error).__name__)
        return False


def current_end_user() -> EndUser | None:
    """The end user of the trace that is open here; where none is open, the one that a trace opened here would get.

    Returns:
        `None` where there is none, and where this process does not know it: the trace is not recorded (sampled out),
        was started by another service, or its provider has no `EndUserSpanProcessor`.
    """
    return current_identity()[0]


def current_identity() -> tuple[EndUser | None, str | None]:
    """The end user, as `current_end_user()` says it, and the session beside it."""
    here = trace_api.get_current_span().get_span_context()
    session_id: str | None
    if here.is_valid:
        found = find_open_root(here, _parent_of(trace_api.get_current_span()), _remembered(here.trace_id))
        standing, session_id = (found.standing, found.session_id) if isinstance(found, OpenRoot) else (None, None)
    else:
        block, default = identified(), process_default()
        standing = resolve(block.end_user if block else None, default.end_user)
        session_id = default.session_id if block is None or block.session_id is None else block.session_id
    return (standing if standing is not None and standing.id is not None else None), session_id or None


def name_here(declared: Declaration, *, by: str, carried: bool = False) -> None:
    """Bring a declaration to the root of the trace that is open here: `set_end_user()` for our other helpers.

    Args:
        declared: What is declared.
        by: The helper as a warning names it.
        carried: Another process has sent it along. Where that process has started the trace, nothing is lost.
    """
    span = trace_api.get_current_span()
    here = span.get_span_context()
    found = find_open_root(here, _parent_of(span), _remembered(here.trace_id))
    outcome = _declare(found, declared, here.trace_id)
    if outcome is Outcome.TAKEN:
        note_named(declared.end_user)
    elif outcome is not Outcome.ENTRY or not carried:
        _say(outcome, f"{by} at span {shown(getattr(span, 'name', None))}", found)


# Blocks -------------------------------------------------------------------------------------------------------------

_BLOCK: Final = context_api.create_key("neatlogs-otel-block")


class Block:
    """An open `trace()` or `@span`, as its context carries it.

    Attributes:
        trace_id: Its trace.
        place: The call as a warning names it.
        root: The trace's local root, where it is known.
        masks: What covers the content captured inside, the innermost first.
        open: Whether its span has not ended; a context may live on in a background task.
    """

    __slots__ = ("masks", "open", "place", "root", "trace_id")

    def __init__(self, trace_id: int, place: str, root: OpenRoot | None, masks: tuple[Mask, ...] = ()) -> None:
        self.trace_id = trace_id
        self.place = place
        self.root = root
        self.masks = masks
        self.open = True

    def attached_to(self, context: Context) -> Context:
        """The context with this block in it."""
        return context_api.set_value(_BLOCK, self, context)


def open_block(trace_id: int) -> Block | None:
    """The innermost `trace()` or `@span` of this trace that is open in the current context."""
    found = context_api.get_value(_BLOCK)
    if isinstance(found, Block) and found.open and found.trace_id == trace_id:
        return found
    return None


def _remembered(trace_id: int) -> OpenRoot | None:
    block = open_block(trace_id)
    return block.root if block is not None else None


# Constants that serve many calls ------------------------------------------------------------------------------------

_named: set[str] = set()
"""Two different end users that calls have named, at most: enough to know of any id that there is another one."""


def note_named(end_user: EndUser | None) -> None:
    """Remember that a call, not a constant, named an end user."""
    if end_user is not None and end_user.id is not None and len(_named) < 2:
        _named.add(end_user.id)


def others_named(end_user_id: str) -> bool:
    """Whether calls in this process have named another end user than this one."""
    return bool(_named - {end_user_id})


def forget_named() -> None:
    """Forget which end users were named; for tests."""
    _named.clear()


# ---------------------------------------------------------------------------------------------------------------------


def _settle_root(span: Span, declared: Declaration) -> OpenRoot:
    root, new = _registry.registry.open(span, is_root=True, takes_identity=True)
    if new:
        # The provider has no span processor of ours; a root that the shim opens itself needs none.
        block = identified()
        if block is not None:
            block.take()
        root.start(declared, block, process_default())
    return root


def _set_end_user(end_user_id: IdArgument, end_user_metadata: MetadataArgument) -> bool:
    span = trace_api.get_current_span()
    here = span.get_span_context()
    name = getattr(span, "name", None)
    place = f"set_end_user() at span {shown(name)}" if name else "set_end_user()"
    found = find_open_root(here, _parent_of(span), _remembered(here.trace_id)) if here.is_valid else Outcome.UNKNOWN
    if not isinstance(found, OpenRoot) and isinstance(span, NonRecordingSpan) and here.is_valid:
        if not here.trace_flags.sampled:
            return False  # Sampled out, here or by the service that started the trace.
        if here.is_remote:
            found = Outcome.ENTRY
    end_user = end_user_from("set_end_user", end_user_id, end_user_metadata, place=place)
    if end_user is None:
        return False
    if not here.is_valid:
        if not is_set_up():
            return False
        warn_once(
            "no_open_trace",
            place,
            "set_end_user() had no effect: no trace is open here. Call it inside trace() or an instrumented request, "
            "or use identify() around the code that opens the trace.",
        )
        return False
    outcome = _declare(found, Declaration(end_user), here.trace_id)
    _say(outcome, place, found)
    if outcome is Outcome.REPEATED:
        return True
    if not isinstance(found, OpenRoot) or outcome is not Outcome.TAKEN:
        return False
    note_named(end_user)
    standing = found.standing
    return standing is not None and not standing.refused and end_user.id in (None, standing.id)


def _declare(found: OpenRoot | Outcome, declared: Declaration, trace_id: int) -> Outcome:
    if isinstance(found, OpenRoot):
        return found.declare(declared)
    if found is not Outcome.ENDED or declared.end_user is None or declared.session_id is not None:
        return found
    # A background task that names the end user of its request again: nothing is lost.
    return Outcome.REPEATED if declared.end_user.same_as(_registry.registry.ended_with(trace_id)) else found


def _say(outcome: Outcome, place: str, found: OpenRoot | Outcome) -> None:
    cause = _CAUSES.get(outcome)
    if cause is None:
        return
    at = f" (at span {shown(found.name)})" if isinstance(found, OpenRoot) else ""
    warn_once("override_ignored", (outcome, place), "The end user named by %s has no effect%s: %s.", place, at, cause)


def _say_nested(place: str, outer: str, root: OpenRoot | None, declared: Declaration) -> None:
    standing = root.standing if root is not None else None
    repeats = declared.end_user is None or declared.end_user.same_as(standing)
    if repeats and (declared.session_id is None or (root is not None and root.session_id == declared.session_id)):
        return
    warn_once(
        "override_ignored",
        ("nested", place),
        "The end user (or session) named by %s has no effect: %s is already open around it, and a trace has one end "
        "user. Name it on the outermost one, or call set_end_user() when it becomes known late.",
        place,
        outer,
    )


def _keep_tags(span: Span, declared: Declaration) -> None:
    if declared.tags is not None:
        span.set_attribute(TAGS, declared.tags)


def _parent_of(span: Span) -> SpanContext | None:
    parent = getattr(span, "parent", None)
    return parent if isinstance(parent, SpanContext) else None
