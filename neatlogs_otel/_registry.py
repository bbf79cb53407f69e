"""The open local roots of this process, and which of them a declaration addresses.

One registry serves all our span processors, because the span that declares an end user and the local root that takes
it may come from different providers. It is bounded and holds spans weakly: a span that is never ended costs nothing
once it is gone, and little before.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict, deque
from typing import Final

from opentelemetry.trace import Span, SpanContext

from neatlogs_otel._identity import EndUser
from neatlogs_otel._open_root import OpenRoot, Outcome
from neatlogs_otel._warnings import warn_once

MAX_OPEN_ROOTS: Final = 10_000
MAX_ENDED_TRACES: Final = 1_000
"""How many ended traces are remembered, so that a warning can tell "ended" from "never seen"."""


class _Registry:
    """Open local roots by trace; several of one trace are entry spans under one remote parent."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._by_trace: OrderedDict[int, dict[int, OpenRoot]] = OrderedDict()
        self._size = 0
        self._ended: OrderedDict[int, EndUser | None] = OrderedDict()
        # Filled by weak reference callbacks, which may run at any moment, also while the lock is held.
        self._collected: deque[tuple[int, int, object]] = deque()

    def __len__(self) -> int:
        return self._size

    def open(self, span: Span, *, is_root: bool, takes_identity: bool) -> tuple[OpenRoot, bool]:
        """Register a local root. Returns it, and whether it is new (several span processors may see one span)."""
        context = span.get_span_context()
        with self._lock:
            self._forget_collected()
            roots = self._by_trace.setdefault(context.trace_id, {})
            known = roots.get(context.span_id)
            # Ids repeat where they are not random, in tests for instance; then the newer span counts.
            if known is not None and known.span is span:
                return known, False
            root = self._open_root(span, context, is_root=is_root, takes_identity=takes_identity)
            roots[context.span_id] = root
            self._size += known is None
            full = self._size > MAX_OPEN_ROOTS
            while self._size > MAX_OPEN_ROOTS:
                _, oldest = self._by_trace.popitem(last=False)
                self._size -= len(oldest)
        if full:
            # Outside of the lock: a log handler may itself open a root span, in another thread.
            warn_once(
                "registry_full",
                None,
                "More than %d traces are open at once; the oldest can no longer be given an end user by "
                "set_end_user(). Are there root spans that are never ended?",
                MAX_OPEN_ROOTS,
            )
        return root, True

    def _open_root(self, span: Span, context: SpanContext, *, is_root: bool, takes_identity: bool) -> OpenRoot:
        collected, ids = self._collected, (context.trace_id, context.span_id)
        return OpenRoot(
            span, is_root=is_root, takes_identity=takes_identity, forget=lambda span: collected.append((*ids, span))
        )

    def close(self, context: SpanContext) -> OpenRoot | None:
        """Take a local root out, because it ends. `None` where it is not there (any more)."""
        with self._lock:
            root = self._remove(context.trace_id, context.span_id)
            if root is not None:
                self._ended[context.trace_id] = root.standing
                if len(self._ended) > MAX_ENDED_TRACES:
                    self._ended.popitem(last=False)
            return root

    def knows(self, root: OpenRoot) -> bool:
        """Whether this very local root is open in this process; after a fork the parent's are not."""
        with self._lock:
            return self._by_trace.get(root.trace_id, {}).get(root.span_id) is root

    def of_trace(self, trace_id: int) -> list[OpenRoot]:
        """The open local roots of a trace."""
        with self._lock:
            self._forget_collected()
            return list(self._by_trace.get(trace_id, {}).values())

    def has_ended(self, trace_id: int) -> bool:
        """Whether a local root of this trace has ended lately."""
        with self._lock:
            return trace_id in self._ended

    def ended_with(self, trace_id: int) -> EndUser | None:
        """The end user of a local root of this trace that has ended lately."""
        with self._lock:
            return self._ended.get(trace_id)

    def _remove(self, trace_id: int, span_id: int) -> OpenRoot | None:
        roots = self._by_trace.get(trace_id)
        root = roots.pop(span_id, None) if roots is not None else None
        if root is not None:
            self._size -= 1
        if roots is not None and not roots:
            del self._by_trace[trace_id]
        return root

    def _forget_collected(self) -> None:
        while self._collected:
            trace_id, span_id, span = self._collected.popleft()
            root = self._by_trace.get(trace_id, {}).get(span_id)
            if root is not None and root.was(span):
                self._remove(trace_id, span_id)


registry = _Registry()


def find_open_root(near: SpanContext, parent: SpanContext | None, remembered: OpenRoot | None) -> OpenRoot | Outcome:
    """The open local root that a declaration made at a span addresses.

    Args:
        near: The span at which it is made.
        parent: Its direct parent.
        remembered: The local root that an enclosing `trace()` or `@span` of this context has found, if any.

    Returns:
        The trace's open root span; else its only open entry span; else, of several, the one that is `near`, `parent`
        or `remembered`. Otherwise `Outcome.ENDED`, `UNKNOWN` or `AMBIGUOUS`.
    """
    roots = registry.of_trace(near.trace_id)
    if not roots:
        return Outcome.ENDED if registry.has_ended(near.trace_id) else Outcome.UNKNOWN
    own = [root for root in roots if root.is_root]
    if own:
        return own[0]
    if len(roots) == 1:
        return roots[0]
    ids = {near.span_id} | ({parent.span_id} if parent is not None else set())
    for root in roots:
        if root.span_id in ids or root is remembered:
            return root
    return Outcome.AMBIGUOUS


def _after_fork() -> None:
    # The parent process will end and export its open spans; here nobody will, so none can be addressed.
    global registry  # One registry per process.
    registry = _Registry()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
