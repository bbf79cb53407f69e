"""Where spans go: the choice of endpoint and protocol, as a table."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from neatlogs_otel._endpoint import EndpointError, choose_endpoint, same_place

GRPC, HTTP = "grpc", "http/protobuf"
OTEL = "OTEL_EXPORTER_OTLP_ENDPOINT"
OTEL_TRACES = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"
OTEL_PROTOCOL = "OTEL_EXPORTER_OTLP_PROTOCOL"
OTEL_TRACES_PROTOCOL = "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"
OURS = "NEATLOGS_ENDPOINT"

# The table is data, because the TypeScript package has the same one.
CASES: dict[str, Any] = json.loads((Path(__file__).parents[1] / "data" / "shim_cases.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("case", CASES["endpoints"], ids=lambda case: case["about"])
def test_choice(case: dict[str, Any]) -> None:
    """Each case of the table gives its URL, its protocol and the name of its source."""
    endpoint = choose_endpoint(case["argument"], None, case["environment"])
    assert (endpoint.url, endpoint.protocol, endpoint.source) == (case["url"], case["protocol"], case["source"])


def test_protocol_argument_beats_the_environment() -> None:
    """`init(protocol=...)` decides for this library, whatever the variables say to others."""
    assert choose_endpoint("http://a:4317", GRPC, {OTEL_PROTOCOL: HTTP}).protocol == GRPC


@pytest.mark.parametrize(
    ("argument", "environ", "ours"),
    [
        ("http://a:4317", {}, True),
        (None, {OURS: "http://a:4317"}, True),
        (None, {}, True),
        (None, {OTEL: "http://a:4317"}, False),
        (None, {OTEL_TRACES: "http://a:4317"}, False),
    ],
)
def test_api_key_goes_only_to_our_own_endpoint(argument: str | None, environ: dict[str, str], ours: bool) -> None:
    """An endpoint that comes from the bare standard variables may be another vendor's and is not ours."""
    assert choose_endpoint(argument, None, environ).is_ours is ours


@pytest.mark.parametrize(
    ("argument", "insecure"),
    [("http://a:1", True), ("https://a:1", False), ("a:1", True), ("unix:/a", True)],
)
def test_scheme_decides_tls(argument: str, insecure: bool) -> None:
    """The scheme says whether the connection is plain text; without one it is."""
    assert choose_endpoint(argument, None, {}).insecure is insecure


def test_standard_variable_without_scheme_leaves_tls_to_the_standard_variables() -> None:
    """`OTEL_EXPORTER_OTLP_INSECURE` keeps its meaning where the standard endpoint has no scheme."""
    assert choose_endpoint(None, None, {OTEL: "a:4317"}).insecure is None


@pytest.mark.parametrize("text", CASES["unusable_endpoints"])
def test_unusable_endpoint_is_one_clear_error(text: str) -> None:
    """An endpoint that can never work raises, and the message quotes it and says what is accepted."""
    with pytest.raises(EndpointError) as raised:
        choose_endpoint(text, None, {})
    assert repr(text) in str(raised.value)
    assert "use http://HOST:PORT" in str(raised.value)
    assert raised.value.source == "argument"


def test_error_names_the_variable() -> None:
    """An unusable endpoint of the environment is reported under the variable's name."""
    with pytest.raises(EndpointError, match="NEATLOGS_ENDPOINT") as raised:
        choose_endpoint(None, None, {OURS: "ftp://a"})
    assert raised.value.source == OURS


@pytest.mark.parametrize(("protocol", "environ"), [("http/json", {}), (None, {OTEL_PROTOCOL: "http/json"})])
def test_unknown_protocol_is_an_error(protocol: str | None, environ: dict[str, str]) -> None:
    """Only grpc and http/protobuf are supported, and the message says so."""
    with pytest.raises(EndpointError, match="use grpc or http/protobuf"):
        choose_endpoint(None, protocol, environ)


def test_unix_socket_is_for_grpc() -> None:
    """A Unix socket with an HTTP protocol is an error, not a surprise at the first export."""
    with pytest.raises(EndpointError, match="only grpc"):
        choose_endpoint("unix:/a", HTTP, {})


@pytest.mark.parametrize(
    ("argument", "protocol"), [("http://a:4317", HTTP), ("http://a:4318", GRPC), ("http://a:9000/path", GRPC)]
)
def test_legal_and_odd_choices_carry_a_note(argument: str, protocol: str) -> None:
    """A protocol on the other protocol's port, and a path that gRPC cannot use, are noted for the log."""
    assert choose_endpoint(argument, protocol, {}).note


def test_usual_choices_carry_no_note() -> None:
    """The defaults and the conventional ports need no remark."""
    assert not choose_endpoint(None, None, {}).note
    assert not choose_endpoint("http://a:4318", None, {}).note


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("localhost:4317", "http://127.0.0.1:4317", True),
        ("http://[::1]:4317", "localhost:4317", True),
        ("https://A.example/v1/traces", "https://a.example:443/v1/traces/", True),
        ("http://localhost:4317", "http://localhost:4318", False),
        ("http://a/v1/traces", "http://a/other", False),
        ("unix:/a", "unix:/a", True),
        ("http://a:port", "http://a:port", True),
    ],
)
def test_same_place(one: str, other: str, same: bool) -> None:
    """Two spellings of one destination compare equal, two destinations do not."""
    assert (same_place(one) == same_place(other)) is same
