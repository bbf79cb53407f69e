"""What the rule costs in one process: the core beside decoding, editing and encoding, on the same bytes in turn."""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median

from neatlogs_processor.core.accepting import Accepting
from neatlogs_processor.core.emitting import Emitting
from neatlogs_processor.core.identity_keys import BACKENDS, SDKS
from neatlogs_processor.core.policy import EndUserPolicy
from neatlogs_processor.core.traces import enforce_traces
from neatlogs_processor.core.treatment import Treatment
from tests.bench.payloads import IDENTITIES, KINDS, request, said_by_an_sdk
from tests.bench.rivals import decode_edit_encode
from tests.support.byte_orders import BYTE_ORDERS, in_byte_order

ROUNDS = 15
SPANS_A_ROUND = 2048
_POLICY = EndUserPolicy()


def run() -> list[tuple[str, int, str, float, float, float]]:
    """Measure every shape.

    Returns:
        Kind, spans a batch, where identity is, and CPU-seconds a million spans: of decode + edit + encode, of the core,
        and of a search for the namespace alone.
    """
    rows = []
    for kind in KINDS:
        for spans in (16, 512):
            for identity in IDENTITIES:
                body = request(kind, spans, identity)
                jobs: list[Callable[[], object]] = [
                    lambda body=body: decode_edit_encode(body),
                    lambda body=body: enforce_traces(body, _POLICY),
                    lambda body=body: body.find(b"neatlogs.end_user of nobody"),
                ]
                times = _interleaved(jobs, SPANS_A_ROUND // spans)
                rows.append((kind, spans, identity, *(seconds / SPANS_A_ROUND * 1e6 for seconds in times)))
    return rows


def run_orders() -> list[tuple[str, str, str, float, float]]:
    """Measure batches of 512 spans as exporters of other languages write them.

    Returns:
        Order, kind, where identity is, and CPU-seconds a million spans: of decode + edit + encode, and of the core.
    """
    rows = []
    for order in BYTE_ORDERS:
        for kind in KINDS:
            for identity in IDENTITIES:
                body = in_byte_order(request(kind, 512, identity), order)
                jobs: list[Callable[[], object]] = [
                    lambda body=body: decode_edit_encode(body),
                    lambda body=body: enforce_traces(body, _POLICY),
                ]
                rival, ours = _interleaved(jobs, SPANS_A_ROUND // 512)
                rows.append((order, kind, identity, rival / SPANS_A_ROUND * 1e6, ours / SPANS_A_ROUND * 1e6))
    return rows


def run_stages() -> list[tuple[str, str, str, float, float, float]]:
    """Measure batches of 512 spans with what is accepted and emitted beside the rule.

    Returns:
        Setting, kind, what the request holds, and CPU-seconds a million spans: of decode + edit + encode for the rule
        alone, of the core for the rule alone, and of the core with that setting.
    """
    accept = Treatment(_POLICY, accept=Accepting(SDKS["openinference"], strip=False))
    strip = Treatment(_POLICY, accept=Accepting(SDKS["openinference"], strip=True))
    emit = Treatment(_POLICY, emit=Emitting(BACKENDS["phoenix"]))
    rows = []
    for kind in KINDS:
        nowhere, roots = request(kind, 512, "nowhere"), request(kind, 512, "roots")
        shapes = [
            ("--accept-from openinference", accept, "nothing to accept", nowhere),
            ("--accept-from openinference", accept, "a user on the roots", said_by_an_sdk(nowhere, "roots")),
            ("--accept-from openinference", accept, "a user on every span", said_by_an_sdk(nowhere, "every")),
            ("the same, --accept-strip", strip, "a user on every span", said_by_an_sdk(nowhere, "every")),
            ("--emit-for phoenix", emit, "no identity", nowhere),
            ("--emit-for phoenix", emit, "identity on the roots", roots),
            ("--emit-for phoenix", emit, "and a user on the children", said_by_an_sdk(roots, "children")),
        ]
        for setting, treatment, what, body in shapes:
            jobs: list[Callable[[], object]] = [
                lambda body=body: decode_edit_encode(body),
                lambda body=body: enforce_traces(body, _POLICY),
                lambda body=body, treatment=treatment: treatment(body),
            ]
            times = _interleaved(jobs, SPANS_A_ROUND // 512)
            rows.append((setting, kind, what, *(seconds / SPANS_A_ROUND * 1e6 for seconds in times)))
    return rows


def _interleaved(jobs: list[Callable[[], object]], times: int) -> list[float]:
    """The median CPU-seconds that each job takes for `times` calls, measured in turns."""
    taken: list[list[float]] = [[] for _ in jobs]
    for turn in range(ROUNDS + 1):
        for at, job in enumerate(jobs):
            began = time.process_time()
            for _ in range(times):
                job()
            if turn:
                taken[at].append(time.process_time() - began)
    return [median(one) for one in taken]
