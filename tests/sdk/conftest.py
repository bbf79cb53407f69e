"""Each test starts with a shim that nobody has used yet, and leaves none of its choices behind."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from opentelemetry.sdk.resources import Resource

import neatlogs_otel as neatlogs
from neatlogs_otel import _declaring, _warnings
from neatlogs_otel._identity import EndUser
from neatlogs_otel._leaving import set_leaving
from neatlogs_otel._process_default import ProcessDefault, set_process_default
from neatlogs_otel._provider import use_tracer_provider
from support.otlp_sink import OtlpSink
from support.recording import Recording


@pytest.fixture(autouse=True)
def unused_shim() -> Iterator[None]:
    """Forget warnings, defaults and the choice of a provider, before and after."""
    _warnings.reset()
    _declaring.forget_named()
    default = set_process_default(None)
    leaving = set_leaving(None)
    provider = use_tracer_provider(None)
    yield
    set_process_default(default)
    set_leaving(leaving)
    use_tracer_provider(provider)


@pytest.fixture
def record() -> Callable[..., Recording]:
    """Make a recording provider and take the shim's own spans from it; arguments as for `Recording`."""

    def make(**settings: Any) -> Recording:
        recording = Recording(**settings)
        use_tracer_provider(recording.provider)
        return recording

    return make


@pytest.fixture
def recorded(record: Callable[..., Recording]) -> Recording:
    """A recording provider from which the shim takes its own spans."""
    return record()


@pytest.fixture
def default_user() -> Callable[..., None]:
    """Set the process default as `init()` does."""

    def set_default(
        end_user_id: Any, metadata: Any = None, *, session_id: str | None = None, auto_session: bool = False
    ) -> None:
        end_user = EndUser.of("init", end_user_id, metadata, place="init()")
        set_process_default(ProcessDefault(end_user, session_id, auto_session))

    return set_default


class Said:
    """What the shim has logged so far."""

    def __init__(self, caplog: pytest.LogCaptureFixture) -> None:
        self._caplog = caplog

    @property
    def messages(self) -> list[str]:
        """Every message, in order."""
        return [r.getMessage() for r in self._caplog.records if r.name == "neatlogs_otel"]

    def once(self, *parts: str) -> bool:
        """Whether exactly one message was logged and holds all the parts."""
        messages = self.messages
        assert len(messages) == 1, f"not one message but {messages}"
        missing = [part for part in parts if part not in messages[0]]
        assert not missing, f"{missing} not in {messages[0]!r}"
        return True

    def nothing(self) -> bool:
        """Whether nothing was logged."""
        assert self.messages == []
        return True


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> Said:
    """The warnings of the shim."""
    return Said(caplog)


EXPORT_VARIABLES = tuple(
    f"OTEL_EXPORTER_OTLP_{signal}{name}"
    for signal in ("", "TRACES_")
    for name in ("ENDPOINT", "HEADERS", "PROTOCOL", "TIMEOUT")
)


@pytest.fixture
def app(record: Callable[..., Recording], monkeypatch: pytest.MonkeyPatch) -> Iterator[Recording]:
    """An application's own set-up, for init() to find: a provider with an exporter and a resource, nothing of ours."""
    for variable in ("NEATLOGS_API_KEY", "NEATLOGS_ENDPOINT", *EXPORT_VARIABLES):
        monkeypatch.delenv(variable, raising=False)
    yield record(ours=False, resource=Resource({"service.name": "shop", "neatlogs.project": "of-the-app"}))
    neatlogs.shutdown()


@pytest.fixture
def sink() -> Iterator[OtlpSink]:
    """A real OTLP receiver; what init() has set up is shut down before it is."""
    with OtlpSink() as receiver:
        yield receiver
        neatlogs.shutdown()
