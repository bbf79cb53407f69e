"""The page over a store of spans that a test writes itself, served in this process at the time of the tests."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from neatlogs_processor.core.policy import EndUserPolicy
from neatlogs_processor.page.api import api_routes
from neatlogs_processor.page.app import PageOptions, page
from neatlogs_processor.store.files import open_writer
from neatlogs_processor.store.reader import SqliteReader
from neatlogs_processor.store.rows import read_request
from neatlogs_processor.store.writing import Writing
from support.stored import NOW, SECOND
from support.web_servers import asgi_server


def root_span(number: int, attributes: Mapping[str, Any] | None = None, **fields: Any) -> Span:
    """Return a root span of a trace of its own, a minute old unless it says otherwise."""
    usual: dict[str, Any] = {"span_id": number.to_bytes(8, "big"), "name": "chat"}
    usual |= {"start_time_unix_nano": NOW - 60 * SECOND, "end_time_unix_nano": NOW - 59 * SECOND}
    return Span(
        trace_id=number.to_bytes(16, "big"),
        attributes=[KeyValue(key=key, value=_value(value)) for key, value in (attributes or {}).items()],
        **{**usual, **fields},
    )


def write_spans(path: Path, *spans: Span) -> None:
    """Write spans of one service into the store at the path."""
    request = ExportTraceServiceRequest()
    resource = request.resource_spans.add()
    resource.resource.attributes.add(key="service.name").value.string_value = "shop"
    resource.scope_spans.add().spans.extend(spans)
    with contextlib.closing(open_writer(path)) as connection:
        Writing(connection).write([(read_request(request.SerializeToString(), EndUserPolicy()), ())], NOW)


@contextmanager
def served_page(
    path: Path, options: PageOptions | None = None, reader: SqliteReader | None = None
) -> Iterator[httpx.Client]:
    """Serve the page and its API over the store at the path."""
    reader = reader or SqliteReader(path)
    options = options or PageOptions()
    routes = api_routes(reader, root_path=options.root_path, clock=lambda: NOW)
    try:
        app = page(reader, options, api=routes, clock=lambda: NOW)
        with asgi_server(app) as url, httpx.Client(base_url=url, timeout=60) as client:
            yield client
    finally:
        reader.close()


def _value(value: object) -> AnyValue:
    if isinstance(value, int):
        return AnyValue(int_value=value)
    return AnyValue(double_value=value) if isinstance(value, float) else AnyValue(string_value=str(value))
