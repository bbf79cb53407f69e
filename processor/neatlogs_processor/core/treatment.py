"""What is done to every trace request: the rule, and around it the stages that were asked for.

accept -> the rule -> pseudonymize -> emit

What other SDKs say is accepted before the rule, so that it ranks above a resource's default and the rule counts it.
What leaves under other keys is written last, so that it is what the rule, and pseudonyms, have left.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from neatlogs_processor.core.owner_spans import Edited
from neatlogs_processor.core.policy import MAX_REPORTED_OVERRIDES, EndUserPolicy, Enforced, Place
from neatlogs_processor.core.traces import enforce_traces

Stage: TypeAlias = Callable[[bytes, EndUserPolicy], Edited]
"""Takes a request and the policy. Raises nothing but `MalformedOtlpError` and `RequestTooLargeError`."""


@dataclass(frozen=True)
class Treatment:
    """The rule and the stages around it. A stage that is absent costs nothing.

    Attributes:
        policy: The rule's policy.
        accept: Takes identity from other keys; see `accepting`.
        pseudonymize: Lets of identity out what may leave; see `pseudonymizing`.
        emit: Writes identity under other keys; see `emitting`.
    """

    policy: EndUserPolicy
    accept: Stage | None = None
    pseudonymize: Stage | None = None
    emit: Stage | None = None

    @property
    def has_stages(self) -> bool:
        """Whether anything is done beside the rule."""
        return not (self.accept is None and self.pseudonymize is None and self.emit is None)

    def __call__(self, body: bytes) -> Enforced:
        """Treat a serialised `ExportTraceServiceRequest`; see `enforce_traces`, whose promises hold here too.

        Returns:
            The request after all stages, with what the rule found in it. What stages remove from children counts as
            overrides.

        Raises:
            MalformedOtlpError: See `enforce_traces`.
            RequestTooLargeError: Likewise.
        """
        accepted = None if self.accept is None else self.accept(body, self.policy)
        enforced = enforce_traces(body if accepted is None else accepted.body, self.policy)
        if accepted is not None:
            enforced.counts.accepted = accepted.changed
            _add(enforced, accepted)
        for stage in (self.pseudonymize, self.emit):
            if stage is not None:
                edited = stage(enforced.body, self.policy)
                enforced.body = edited.body
                _add(enforced, edited)
        return enforced


def _add(enforced: Enforced, edited: Edited) -> None:
    """Count among the overrides what a stage has removed, and describe it while there is room."""
    enforced.counts.invalid += edited.invalid
    if not edited.removed:
        return
    enforced.counts.overrides[Place.CHILD] += edited.removed
    room = MAX_REPORTED_OVERRIDES - len(enforced.overrides)
    described = edited.overrides[:room]
    enforced.overrides += described
    enforced.overrides_not_reported += edited.removed - len(described)
