"""flush(), shutdown() and failing exports: a bool and a log line, never an exception and never a hang."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import grpc
import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult

import neatlogs_otel as neatlogs
from neatlogs_otel._export import AddingExporter


class Raising(SpanExporter):
    """An exporter that always raises."""

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        raise RuntimeError("the exporter is broken")

    def shutdown(self) -> None:
        raise RuntimeError("it cannot even stop")


def test_flush_and_shutdown_before_init() -> None:
    """Before init() there is nothing to do, and both say so."""
    assert neatlogs.flush() is True
    assert neatlogs.shutdown() is True


def test_shutdown_twice(app, sink) -> None:
    """shutdown() exports what is queued; again, it has nothing to do; flush() afterwards neither."""
    neatlogs.init(endpoint=sink.grpc_endpoint)
    with neatlogs.trace("chat"):
        pass
    assert neatlogs.shutdown() is True
    assert neatlogs.shutdown() is True
    assert neatlogs.flush() is True
    assert len(sink.spans) == 1


def test_spans_after_shutdown_do_no_harm(app, sink) -> None:
    """After shutdown() the application's spans go on to its own exporters."""
    neatlogs.init(endpoint=sink.grpc_endpoint, end_user_id="u1")
    neatlogs.shutdown()
    with neatlogs.trace("chat"):
        pass
    assert app.id_of("chat") == "u1"


@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
def test_flush_says_when_spans_were_refused(app, sink, protocol) -> None:
    """flush() is False where the receiver has refused the spans, and True again where it accepts."""
    sink.answer(grpc_status=grpc.StatusCode.INVALID_ARGUMENT, http_status=400)
    endpoint = sink.grpc_endpoint if protocol == "grpc" else sink.http_endpoint
    neatlogs.init(endpoint=endpoint, protocol=protocol)
    with neatlogs.trace("refused"):
        pass
    assert neatlogs.flush() is False
    sink.answer()
    with neatlogs.trace("accepted"):
        pass
    assert neatlogs.flush() is True


@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
def test_flush_and_shutdown_return_in_time(app, sink, protocol, monkeypatch) -> None:
    """Where the receiver does not answer, both give up after their timeout with False; the export itself goes on."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "300")  # Longer than a test may last.
    sink.hold()
    endpoint = sink.grpc_endpoint if protocol == "grpc" else sink.http_endpoint
    neatlogs.init(endpoint=endpoint, protocol=protocol)
    with neatlogs.trace("chat"):
        pass
    assert neatlogs.flush(0.05) is False
    assert neatlogs.shutdown(0.05) is False
    assert [span.name for span in sink.wait_for_spans(1)] == ["chat"]


@pytest.mark.parametrize("timeout", [0, -1, float("nan"), float("inf"), "soon", None])
def test_odd_timeouts_do_not_raise(app, sink, timeout) -> None:
    """A timeout that makes no sense is no reason to raise."""
    neatlogs.init(endpoint=sink.grpc_endpoint)
    assert neatlogs.flush(timeout) in (True, False)
    assert neatlogs.shutdown(timeout) in (True, False)


def test_an_exporter_of_the_application_that_raises(app, sink) -> None:
    """An exporter of the application that raises disturbs neither the application nor our own export."""
    app.provider.add_span_processor(SimpleSpanProcessor(Raising()))
    neatlogs.init(endpoint=sink.grpc_endpoint)
    with neatlogs.trace("chat", end_user_id="alice"):
        pass
    assert neatlogs.flush() is True
    assert [span.name for span in sink.spans] == ["chat"]


def test_our_exporter_that_raises_is_counted(app) -> None:
    """An exporter below ours that raises counts as a failure, so that flush() can say so."""
    exporter = AddingExporter(Raising(), {}, None)
    with pytest.raises(RuntimeError):
        exporter.export([])
    assert exporter.failures == 1


def test_flush_from_many_threads(app, sink) -> None:
    """flush() and shutdown() from many threads at once neither raise nor deadlock, and every span arrives once."""
    neatlogs.init(endpoint=sink.grpc_endpoint)
    failed = []

    def work() -> None:
        try:
            with neatlogs.trace("chat", end_user_id="alice"):
                pass
            neatlogs.flush()
        except Exception as error:
            failed.append(error)

    threads = [threading.Thread(target=work) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    neatlogs.shutdown()
    assert failed == []
    assert len(sink.spans) == 20
