"""`init()`, `flush()` and `shutdown()`: the process default, and the way of the spans out of the process."""

from __future__ import annotations

import atexit
import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal
from uuid import UUID

from opentelemetry import trace as trace_api
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import TracerProvider as SdkTracerProvider
from opentelemetry.trace import ProxyTracerProvider, TracerProvider

from neatlogs_otel._arguments import check_texts, checked_api_key, checked_headers, destination, resource_attributes
from neatlogs_otel._calls import end_dropped_calls
from neatlogs_otel._capture import Mask
from neatlogs_otel._endpoint import Endpoint
from neatlogs_otel._export import AddingExporter, OwnExport
from neatlogs_otel._identity import (
    IdArgument,
    MetadataArgument,
    encode_session,
    end_user_from,
)
from neatlogs_otel._leaving import chosen, set_leaving
from neatlogs_otel._otlp import make_exporter, sends_to_same_place, span_processors
from neatlogs_otel._process_default import ProcessDefault, environment_default, set_process_default
from neatlogs_otel._provider import records_nothing, tracer_provider
from neatlogs_otel._span_processor import EndUserSpanProcessor
from neatlogs_otel._warnings import logger, warn_once
from neatlogs_otel.conventions import WORKFLOW_NAME

Roots = Literal["trace", "entry"]


@dataclass
class _Attached:
    """What `init()` has put on a provider. It stays there; a later `init()` changes what it does.

    Attributes:
        provider: The provider.
        made: Whether `init()` made it.
        naming: Our span processor that names end users; `None` where the application has added one itself.
        export: Our export.
        settings: What the export was set up with, to notice whether anything changed; `None` after `shutdown()`.
    """

    provider: TracerProvider
    made: bool
    naming: EndUserSpanProcessor | None = None
    export: OwnExport = field(default_factory=OwnExport)
    settings: object = None


_lock = threading.RLock()
_attached: _Attached | None = None


def init(
    api_key: str | None = None,
    *,
    workflow_name: str | None = None,
    endpoint: str | None = None,
    user_id: str | int | UUID | None = None,
    end_user_id: IdArgument = None,
    end_user_metadata: MetadataArgument = None,
    session_id: str | int | UUID | None = None,
    auto_session: bool = False,
    tags: str | Iterable[str] | None = None,
    project: str | None = None,
    mask: Mask | None = None,
    export: bool = True,
    roots: Roots = "trace",
    protocol: Literal["grpc", "http/protobuf"] | None = None,
    headers: Mapping[str, str] | None = None,
    pseudonymize_key_file: str | os.PathLike[str] | None = None,
    metadata_allow: str | Iterable[str] | None = None,
) -> TracerProvider:
    """Sets up tracing for this process: the end user by default, and export.

        neatlogs.init(workflow_name="support-bot")                       # identity per request, by trace() or @span
        neatlogs.init(workflow_name="batch-job", end_user_id="u_812")    # a process that serves one end user

    Where the application has set a `TracerProvider`, that one is used: its exporters see what they saw before, and our
    own exporter is added. Where there is none, one is made and set. OpenTelemetry lets a process set its provider only
    once: an application that sets one of its own must do so *before* `init()`, or OpenTelemetry refuses it with the
    warning "Overriding of current TracerProvider is not allowed".

    The service's name is that of the provider's resource: `OTEL_SERVICE_NAME`, as anywhere in OpenTelemetry; without
    one, a provider that `init()` makes takes the workflow's name instead of `unknown_service`. Batching, timeouts,
    compression and certificates follow the standard variables too.

    Calling it again replaces the settings of the first call (a provider that it made keeps its resource), with a
    warning. It also works after `shutdown()`.

    Args:
        api_key: Sent as the header `x-api-key`; default `NEATLOGS_API_KEY`. It never goes to an endpoint that comes
            from the standard `OTEL_*` variables, which may be another vendor's.
        workflow_name: Resource attribute `neatlogs.workflow_name`.
        endpoint: `http(s)://host:port`, `host:port` (plain text) or `unix:PATH`. Default: `NEATLOGS_ENDPOINT`, then
            the standard `OTEL_EXPORTER_OTLP_*` variables, then `http://localhost:4317`, which is the processor.
        user_id: The operator, who runs this process: resource attribute `user.id`, and nothing else. Never an end user.
        end_user_id: The end user of traces that name no other; for processes that serve one end user. A callable is
            called once, now. Default: `NEATLOGS_END_USER_ID`.
        end_user_metadata: A JSON object about that end user, or a callable that returns one. Default:
            `NEATLOGS_END_USER_METADATA`, which never joins an id that was passed here.
        session_id: The session of traces that name no other. Default: `NEATLOGS_SESSION_ID`.
        auto_session: Make up one session id for this process. Only traces whose end user comes from `init()` get it.
        tags: Resource attribute `neatlogs.tags`: strings, or one string with commas.
        project: Resource attribute `neatlogs.project`.
        mask: A function from attributes to attributes. It runs in the background before export, on our exporter only:
            once for each span, event and link, and for a status description under the key `otel.status_description`.
            It sees everything but identity, session, tags and span kind, which always stay. If it raises, these are
            all that is left.
        export: `False`: name end users, export nothing.
        roots: `"entry"`: a service behind a gateway that starts the traces; see `EndUserSpanProcessor`.
        protocol: `grpc` or `http/protobuf`. Default: the standard variables, then by the endpoint (port 4318 or a
            path: http/protobuf).
        headers: Sent with every export, wherever it goes.
        pseudonymize_key_file: A file of keys, one a line (`key-id secret`). Ids then leave this process as pseudonyms
            that the first key makes; here they stay what they are. What is set on an open root by hand, as
            `neatlogs.end_user.*`, is hidden by exporters of ours and by the processor, not by others; a warning says
            so. Default: `NEATLOGS_PSEUDONYMIZE_KEY_FILE`.
        metadata_allow: Which keys of metadata leave: strings, or one string with commas. `company.size` is a path too,
            `*` is everything. Default: `NEATLOGS_METADATA_ALLOW`, then none with a key file, else everything.

    Returns:
        The `TracerProvider` in use, for instrumentations that take one.

    Raises:
        TypeError: An argument has a type that can never work.
        ValueError: `endpoint`, `protocol`, `roots`, `api_key` or `headers` can never work, or the file of
            `pseudonymize_key_file` cannot be used. Nothing was changed. What is wrong in an environment variable is
            logged instead, and nothing is exported, or where it is the key file, no end user; bad identity is refused
            with a warning.
    """
    check_texts(api_key=api_key, workflow_name=workflow_name, endpoint=endpoint, project=project, protocol=protocol)
    if roots not in ("trace", "entry"):
        raise ValueError(f'roots must be "trace" or "entry", not {roots!r}')
    if mask is not None and not callable(mask):
        raise TypeError(f"mask must be callable, not {type(mask).__name__}")
    sent_headers = checked_headers(headers)
    key = checked_api_key(api_key)
    target = destination(endpoint, protocol) if export else None
    allowed = chosen(pseudonymize_key_file, metadata_allow, os.environ)

    default = ProcessDefault(
        end_user_from("init", end_user_id, end_user_metadata, place="init()"),
        encode_session(session_id, place="init()"),
        bool(auto_session),
    )
    resource = resource_attributes(user_id, workflow_name, project, tags)
    with _lock:
        set_leaving(allowed)
        set_process_default(default.over(environment_default(os.environ)))
        attached = _attach(resource, roots)
        if attached is None:
            return tracer_provider()
        if target is not None and sends_to_same_place(attached.provider, target):
            warn_once(
                "same_endpoint",
                target.url,
                "The application already exports its spans to %s, so init() does not export there again. Resource "
                "attributes of init() (user_id, workflow_name, project, tags) and mask have no effect there: set them "
                "in that setup, or remove its exporter.",
                target.url,
            )
            target = None
        _set_export(attached, target, key, sent_headers, resource, mask)
        return attached.provider


def flush(timeout: float = 10.0) -> bool:
    """Exports what has ended so far, where a process is about to be frozen or killed.

    Flushes our own export; where `init()` made the provider, its other span processors too. Never raises.

    Args:
        timeout: Seconds to wait at most. What is still under way then goes on in the background.

    Returns:
        Whether everything was accepted in time. `True` where there is nothing to export.
    """
    end_dropped_calls()
    attached = _attached
    if attached is None or attached.settings is None:
        return True
    export = attached.export
    failures = export.failures

    def work() -> bool:
        made = _made_here(attached)
        flushed = made.force_flush() if made is not None else export.force_flush()
        return flushed is not False and export.failures == failures

    return _within(timeout, work, "flush()")


def shutdown(timeout: float = 10.0) -> bool:
    """Exports what has ended so far and stops exporting. It also happens by itself when the process exits.

    Shuts down our own export; where `init()` made the provider, the provider too. `init()` starts export again. Safe
    to call at any time and repeatedly; never raises.

    Args:
        timeout: Seconds to wait at most. What is still under way then goes on in the background.

    Returns:
        Whether everything was accepted in time. `True` where there is nothing to shut down.
    """
    end_dropped_calls()
    attached = _attached
    if attached is None:
        return True
    with _lock:
        attached.settings = None
    export = attached.export
    failures = export.failures

    def work() -> bool:
        (_made_here(attached) or export).shutdown()
        return export.failures == failures

    return _within(timeout, work, "shutdown()")


# The provider and what is put on it.


def _attach(resource: Mapping[str, str], roots: Roots) -> _Attached | None:
    """Put our two span processors on the provider in use, once; `None` where it takes none."""
    global _attached
    made = _make_provider_if_none(resource)
    provider = tracer_provider()
    if records_nothing(provider):
        return None  # It could not be made, and that was said.
    if _attached is not None and _attached.provider is provider:
        if _attached.settings is not None:
            warn_once("init_again", None, "init() was called again; its settings replace those of the earlier call.")
    elif not callable(getattr(provider, "add_span_processor", None)):
        warn_once(
            "foreign_provider",
            type(provider),
            "The TracerProvider in use (%s) takes no span processors, so init() leaves it alone: traces get no end "
            "user and are not exported by neatlogs_otel.",
            type(provider).__qualname__,
        )
        return None
    else:
        _attached = _Attached(provider, made)
        _name_end_users(_attached, roots)
        _add(provider, _attached.export)
        return _attached
    _name_end_users(_attached, roots)
    return _attached


def _make_provider_if_none(resource: Mapping[str, str]) -> bool:
    if not isinstance(tracer_provider(), ProxyTracerProvider):
        return False
    try:
        provider = SdkTracerProvider(resource=_named(Resource.create(dict(resource)), resource.get(WORKFLOW_NAME)))
    except Exception as error:  # noqa: BLE001  # the SDK reads many variables, and raises if it cannot
        warn_once("no_provider", type(error), "Nothing is recorded: %s: %s", type(error).__name__, error)
        return False
    trace_api.set_tracer_provider(provider)
    # Another thread may have set one in the meantime; then OpenTelemetry has kept that.
    return tracer_provider() is provider


def _named(resource: Resource, workflow_name: str | None) -> Resource:
    """The resource with a service name, where OpenTelemetry found none and the workflow's will do."""
    if workflow_name is None or not str(resource.attributes.get(SERVICE_NAME, "")).startswith("unknown_service"):
        return resource
    return resource.merge(Resource({SERVICE_NAME: workflow_name}))


def _name_end_users(attached: _Attached, roots: Roots) -> None:
    if attached.naming is not None:
        attached.naming._entry = roots == "entry"
    elif not any(isinstance(processor, EndUserSpanProcessor) for processor in span_processors(attached.provider)):
        attached.naming = EndUserSpanProcessor(roots=roots)
        _add(attached.provider, attached.naming)


def _add(provider: Any, processor: object) -> None:
    provider.add_span_processor(processor)


def _made_here(attached: _Attached) -> SdkTracerProvider | None:
    provider = attached.provider
    return provider if attached.made and isinstance(provider, SdkTracerProvider) else None


def _set_export(
    attached: _Attached,
    target: Endpoint | None,
    api_key: str | None,
    headers: Mapping[str, str],
    resource: Mapping[str, str],
    mask: Mask | None,
) -> None:
    settings = (target, api_key, dict(headers), dict(resource), mask)
    if attached.settings == settings:
        return
    if target is not None and api_key and not target.is_ours:
        warn_once(
            "api_key_not_sent",
            target.source,
            "The API key is not sent to %s, because that endpoint comes from %s and may be another vendor's. Name it "
            "by init(endpoint=...) or NEATLOGS_ENDPOINT to send the key there.",
            target.url,
            target.source,
        )
    try:
        sender = make_exporter(target, api_key=api_key, headers=headers) if target is not None else None
        before = attached.export.replace(AddingExporter(sender, resource, mask) if sender is not None else None)
    except Exception as error:  # noqa: BLE001  # the SDK reads many more variables, and raises if it cannot
        logger.error("Nothing is exported: %s: %s", type(error).__name__, error)
        before = attached.export.replace(None)
    attached.settings = settings
    _shut_down_at_exit(attached)
    if before is not None:
        _within(5.0, before.shutdown, "init()")


def _shut_down_at_exit(attached: _Attached) -> None:
    # A provider normally does it by itself. One that was shut down or made with shutdown_on_exit=False does not.
    if getattr(attached.provider, "_atexit_handler", None) is None:
        atexit.unregister(attached.export.shutdown)
        atexit.register(attached.export.shutdown)


def _within(timeout: float, work: Callable[[], object], place: str) -> bool:
    """Do the work in a thread and wait for it, because the SDK's own timeouts do not bound an export under way."""
    outcome: list[bool] = []

    def run() -> None:
        try:
            outcome.append(work() is not False)
        except Exception as error:  # noqa: BLE001  # an exporter or span processor of the application
            warn_once("export_failed", (place, type(error)), "%s in %s.", type(error).__name__, place)
            outcome.append(False)

    thread = threading.Thread(target=run, name=f"neatlogs-otel-{place}", daemon=True)
    try:
        thread.start()
    except RuntimeError:
        # The interpreter is ending and starts no more threads.
        run()
        return outcome[0]
    deadline = time.monotonic() + _seconds(timeout)
    thread.join(max(0.0, deadline - time.monotonic()))
    return bool(outcome and outcome[0])


def _seconds(timeout: object) -> float:
    # threading refuses very long waits and NaN.
    if isinstance(timeout, (int, float)) and timeout == timeout:  # NaN is not itself.
        return min(max(float(timeout), 0.0), 3600.0)
    return 10.0


def _after_fork() -> None:
    global _lock  # Another thread of the parent may have held it.
    _lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
