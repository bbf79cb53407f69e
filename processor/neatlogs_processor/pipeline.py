"""What happens to every request, whichever receiver took it: bound, enforce, count, send."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Final

from neatlogs_processor.beside import beside
from neatlogs_processor.core.backoff import overload_delay
from neatlogs_processor.core.explain import with_explanation
from neatlogs_processor.core.policy import Counts, Enforced
from neatlogs_processor.core.request import Request, Signal
from neatlogs_processor.core.treatment import Treatment
from neatlogs_processor.errors import NoDestinationError, OverloadedError, ProcessorError, RequestTooLargeError
from neatlogs_processor.exporters.sender import Sender
from neatlogs_processor.telemetry import Telemetry

# A request made of nothing but empty messages takes about a microsecond for each of its bytes, a usual one a thousandth
# of that. What may take long is walked beside the event loop, so that it keeps neither health checks nor other requests
# waiting; for the others, the way to a thread and back is a tenth of all that a batch costs.
_SMALL: Final = 128 * 1024
_LARGE: Final = 2 * 2**20
# Between these sizes samples decide. Where messages are tiny, so are many lengths: an eighth of all bytes or more; of
# what exporters send it is a tenth at most. Samples lie at random, so that nothing hides between them.
_TINY_LENGTHS: Final = bytes(range(8))
_SAMPLES: Final = 16
_SAMPLE_BYTES: Final = 512
_USUAL_SAMPLE: Final = _SAMPLE_BYTES * 7 // 8


class Pipeline:
    """Answers requests.

    Args:
        destinations: Where each signal goes; a signal that is missing is refused.
        treat: What is done to traces: the rule, and the stages around it.
        max_message_size: Bytes, after decompression.
        max_concurrent_requests: How many requests may be in flight.
        telemetry: Counts and logs.
        chance: Returns a random number, 0 <= chance < 1.
        explain: Whether an answer says that overrides were ignored.
    """

    def __init__(
        self,
        destinations: Mapping[Signal, Sender],
        *,
        treat: Treatment,
        max_message_size: int,
        max_concurrent_requests: int,
        telemetry: Telemetry,
        chance: Callable[[], float],
        explain: bool = False,
    ) -> None:
        self._destinations = destinations
        self._treat = treat
        self._max_message_size = max_message_size
        self._max_concurrent_requests = max_concurrent_requests
        self._telemetry = telemetry
        self._chance = chance
        self._explain = explain
        self._in_flight = 0
        telemetry.gauges.requests_in_flight.read = lambda: self._in_flight
        telemetry.gauges.requests_limit.read = lambda: max_concurrent_requests

    async def handle(self, request: Request) -> bytes:
        """Enforce the rule on a request and deliver it.

        Returns:
            The destination's response, as it came, or with a warning about ignored overrides.

        Raises:
            ProcessorError: The request was not delivered. Except where the client goes away, nothing else is raised.
        """
        self._in_flight += 1
        began = self._telemetry.clock()
        counts = Counts()
        try:
            self._admit(request)
            if request.signal is Signal.TRACES:
                enforced = await self._enforce(request.body)
                counts = enforced.counts
                self._telemetry.enforced(enforced)
                request = replace(request, body=enforced.body, enforced=enforced)
            response = await self._destinations[request.signal].send(request)
        except ProcessorError as error:
            self._telemetry.refused(request.signal, error, spans=counts.spans)
            raise
        except asyncio.CancelledError:
            self._telemetry.abandoned(request.signal, spans=counts.spans)
            raise
        except Exception as error:  # noqa: BLE001  # a bug in one request must not cost the others
            internal = ProcessorError("the processor failed on this request; its log says where")
            self._telemetry.failed(error)
            self._telemetry.refused(request.signal, internal, spans=counts.spans)
            raise internal from None
        finally:
            self._in_flight -= 1
            self._telemetry.request_duration.observe(self._telemetry.clock() - began, request.signal.value)
        self._telemetry.forwarded(request.signal, spans=counts.spans)
        if self._explain and request.enforced is not None:
            return with_explanation(response, request.enforced)
        return response

    async def _enforce(self, body: bytes) -> Enforced:
        if self._is_quick(body):
            return self._treat(body)
        return await beside(partial(self._treat, body))

    def _is_quick(self, body: bytes) -> bool:
        size = len(body)
        if self._treat.has_stages or not _SMALL < size <= _LARGE:
            return size <= _SMALL
        for _ in range(_SAMPLES):
            at = int(self._chance() * (size - _SAMPLE_BYTES))
            if len(body[at : at + _SAMPLE_BYTES].translate(None, _TINY_LENGTHS)) < _USUAL_SAMPLE:
                return False
        return True

    def _admit(self, request: Request) -> None:
        if self._in_flight > self._max_concurrent_requests:
            raise OverloadedError(
                f"{self._max_concurrent_requests} requests are in flight (--max-concurrent-requests)",
                retry_after=overload_delay(self._chance()),
            )
        if request.signal not in self._destinations:
            raise NoDestinationError(f"{request.signal.value} have no destination; name one with --upstream-endpoint")
        if len(request.body) > self._max_message_size:
            raise RequestTooLargeError(
                f"the request has {len(request.body)} bytes, the limit is {self._max_message_size} (--max-message-size)"
            )
