"""Our OTLP exporter, and finding one of the application's that already sends to the same place."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any

from opentelemetry.sdk.trace.export import SpanExporter
from opentelemetry.util.re import parse_env_headers

from neatlogs_otel._answers import hear_grpc, hear_http
from neatlogs_otel._endpoint import Endpoint, same_place
from neatlogs_otel._provider import SCOPE_VERSION

API_KEY_HEADER = "x-api-key"
_CLIENT_HEADER = "x-neatlogs-client"
# A session that is given to the exporter would silently replace the one that such a provider makes.
_CREDENTIAL_PROVIDERS = (
    "OTEL_PYTHON_EXPORTER_OTLP_HTTP_CREDENTIAL_PROVIDER",
    "OTEL_PYTHON_EXPORTER_OTLP_HTTP_TRACES_CREDENTIAL_PROVIDER",
)
_HEADER_VARIABLES = ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "OTEL_EXPORTER_OTLP_HEADERS")


def make_exporter(endpoint: Endpoint, *, api_key: str | None, headers: Mapping[str, str]) -> SpanExporter:
    """An OTLP exporter for an endpoint.

    Timeouts, compression and certificates are those of the standard `OTEL_EXPORTER_OTLP_*` variables. Headers are not
    mixed: the API key goes only to an endpoint that was named for this library, and headers of the standard variables
    (another vendor's token, perhaps) only to an endpoint of the standard variables.

    Args:
        endpoint: Where to and over which protocol.
        api_key: Sent as `x-api-key` to an endpoint of ours.
        headers: What the application asked for; sent wherever it exports to.
    """
    own = {name.lower(): value for name, value in headers.items()}
    if endpoint.is_ours:
        # Never empty: without any header of ours the gRPC exporter would take those of the standard variables.
        own = {_CLIENT_HEADER: f"neatlogs-otel/{SCOPE_VERSION}"} | ({API_KEY_HEADER: api_key} if api_key else {}) | own
    elif own:
        # Given headers replace those of the standard variables in some exporters; there they are wanted besides.
        own = _standard_headers() | own
    # Imported here, because each of the two brings a network library of its own.
    if endpoint.protocol == "grpc":
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcExporter

        exporter = GrpcExporter(endpoint=endpoint.url, insecure=endpoint.insecure, headers=own or None)
        hear_grpc(exporter)
        return exporter
    import requests
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HttpExporter

    class _OwnHeaders(requests.Session):
        """The HTTP exporter adds the headers of the standard variables to any others; here they are left out again."""

        def send(self, request: requests.PreparedRequest, **kwargs: Any) -> requests.Response:
            for name, value in _standard_headers().items():
                if name not in own and request.headers.get(name) == value:
                    del request.headers[name]
            return super().send(request, **kwargs)

    session: requests.Session | None = None
    if endpoint.is_ours and _standard_headers():
        session = _OwnHeaders()
    elif not any(name in os.environ for name in _CREDENTIAL_PROVIDERS):
        session = requests.Session()
    if session is not None:
        session.hooks["response"].append(hear_http)
    return HttpExporter(endpoint=endpoint.url, headers=own or None, session=session)


def span_processors(provider: object) -> Iterator[object]:
    """The span processors of a provider, those inside others included.

    The SDK has no public way to ask. Where a provider is built differently, nothing is found.
    """
    waiting = [getattr(provider, "_active_span_processor", None)]
    seen: set[int] = set()
    while waiting:
        processor = waiting.pop(0)
        if processor is None or id(processor) in seen:
            continue
        seen.add(id(processor))
        yield processor
        inner = getattr(processor, "_span_processors", ())
        if isinstance(inner, (list, tuple)):
            waiting.extend(inner)


def sends_to_same_place(provider: object, endpoint: Endpoint) -> bool:
    """Whether a span processor of the provider already exports over OTLP to this endpoint."""
    for processor in span_processors(provider):
        exporter: Any = getattr(processor, "span_exporter", None)
        # An exporter may stand inside others, such as `EndUserSpanExporter`.
        for _ in range(4):
            if exporter is None:
                break
            if type(exporter).__module__.startswith("opentelemetry.exporter.otlp."):
                if _place_of(exporter) == endpoint.identity:
                    return True
                break
            exporter = getattr(exporter, "_exporter", None)
    return False


def _place_of(exporter: Any) -> tuple[str, str] | None:
    url = getattr(exporter, "_endpoint", None)
    if not isinstance(url, str):
        return None
    if "://" not in url and not url.startswith("unix:") and getattr(exporter, "_insecure", True) is False:
        url = f"https://{url}"
    return same_place(url)


def _standard_headers() -> dict[str, str]:
    text = next((os.environ[name] for name in _HEADER_VARIABLES if os.environ.get(name)), "")
    return dict(parse_env_headers(text, liberal=True))
