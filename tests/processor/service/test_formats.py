"""How settings are written: what is read, and what is said about what cannot be."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neatlogs_processor.formats import (
    Endpoint,
    ListenAddress,
    format_duration,
    format_size,
    parse_duration,
    parse_header_lines,
    parse_headers,
    parse_size,
)

READ: list[tuple[Callable[[str], Any], str, Any]] = [
    (ListenAddress.parse, "127.0.0.1:4317", ListenAddress("127.0.0.1", 4317)),
    (ListenAddress.parse, "[::1]:0", ListenAddress("::1", 0)),
    (ListenAddress.parse, "unix:/run/otlp.sock", ListenAddress(path="/run/otlp.sock")),
    (ListenAddress.parse, "unix:///run/otlp.sock", ListenAddress(path="/run/otlp.sock")),
    (ListenAddress.parse, "unix:otlp.sock", ListenAddress(path="otlp.sock")),
    (Endpoint.parse, "http://collector:4317", Endpoint("collector", 4317)),
    (Endpoint.parse, "https://collector:4317/", Endpoint("collector", 4317, tls=True)),
    (Endpoint.parse, "HTTPS://collector:443", Endpoint("collector", 443, tls=True)),
    (Endpoint.parse, "collector:4317", Endpoint("collector", 4317)),
    (Endpoint.parse, "https://collector", Endpoint("collector", 443, tls=True, port_is_implied=True)),
    (Endpoint.parse, "http://[::1]/otlp/", Endpoint("::1", 80, base="/otlp", port_is_implied=True)),
    (Endpoint.parse, "https://collector:4318/api/otlp", Endpoint("collector", 4318, tls=True, base="/api/otlp")),
    (Endpoint.parse, "[2001:db8::1]:4317", Endpoint("2001:db8::1", 4317)),
    (Endpoint.parse, "unix:/run/otlp.sock", Endpoint(path="/run/otlp.sock")),
    (parse_size, "1048576", 2**20),
    (parse_size, "64MiB", 64 * 2**20),
    (parse_size, "1.5 KiB", 1536),
    (parse_size, "10mb", 10_000_000),
    (parse_duration, "8s", 8.0),
    (parse_duration, "500ms", 0.5),
    (parse_duration, "1.5m", 90.0),
    (parse_duration, "1h", 3600.0),
    (parse_duration, "0", 0.0),
    (parse_headers, "a=1", {"a": "1"}),
    (parse_headers, " Authorization = Bearer x=y , x-b=2,", {"authorization": "Bearer x=y", "x-b": "2"}),
    (parse_headers, "", {}),
    (parse_header_lines, "# comment\n\nauthorization=a,b\n  x-b = 2  \n", {"authorization": "a,b", "x-b": "2"}),
]

REFUSED: list[tuple[Callable[[str], Any], str, str]] = [
    (ListenAddress.parse, "4317", "write 127.0.0.1:4317"),
    (ListenAddress.parse, ":4317", "write 127.0.0.1:4317"),
    (ListenAddress.parse, "127.0.0.1:grpc", "is not a port"),
    (ListenAddress.parse, "127.0.0.1:65536", "is not a port"),
    (ListenAddress.parse, "127.0.0.1:-1", "is not a port"),
    (ListenAddress.parse, "::1:4317", "write [::1]:4317"),
    (ListenAddress.parse, "http://127.0.0.1:4317", "is not a host"),
    (ListenAddress.parse, "[]:4317", "is not a host"),
    (ListenAddress.parse, "unix:", "a path is needed"),
    (Endpoint.parse, "collector", "a host and a port are needed"),
    (Endpoint.parse, "https://", "write https://collector:4317"),
    (Endpoint.parse, "http://collector:4317/a?b=c", "without query or fragment"),
    (Endpoint.parse, "http://collector:4318/otlp/v1/traces", "leave v1/traces out"),
    (Endpoint.parse, "ftp://collector:4317", "is not supported"),
    (Endpoint.parse, "://collector:4317", "is not supported"),
    (Endpoint.parse, "http://key@collector:4317", "--upstream-headers-file"),
    (Endpoint.parse, "collector:0", "port 0"),
    (Endpoint.parse, "col lector:4317", "is not a host"),
    (parse_size, "64 monkeys", "write 64MiB"),
    (parse_size, "0", "between 1 byte"),
    (parse_size, "2GiB", "between 1 byte"),
    (parse_size, "-1", "write 64MiB"),
    (parse_duration, "8", "write 8s"),
    (parse_duration, "8 sheep", "write 8s"),
    (parse_duration, "-8s", "write 8s"),
    (parse_headers, "hunter2", "name=value"),
    (parse_headers, "=x", "is not a header"),
    (parse_headers, "a b=x", "is not a header"),
    (parse_headers, "grpc-timeout=x", "is not a header"),
    (parse_headers, "User-Agent=x", "is not a header"),
    (parse_headers, "x-bin=x", "binary"),
    (parse_headers, "x=ü", "printable ASCII"),
    (parse_header_lines, "a=1\nsecret", "line 2"),
]


@pytest.mark.parametrize(("parse", "text", "value"), READ)
def test_a_format_is_read(parse: Callable[[str], Any], text: str, value: Any) -> None:
    """Every way to write a value has one meaning."""
    assert parse(text) == value


@pytest.mark.parametrize(("parse", "text", "says"), REFUSED)
def test_what_cannot_be_read_is_answered_with_what_to_write(parse: Callable[[str], Any], text: str, says: str) -> None:
    """A value that cannot be used gets a message that helps."""
    with pytest.raises(ValueError, match=re.escape(says)):
        parse(text)


@pytest.mark.parametrize("text", ["hunter2", "authorization=x,hunter2", "x=hunter2\x00"])
def test_a_header_s_value_is_not_repeated_in_a_message(text: str) -> None:
    """Whatever is wrong with a secret, the message does not show it."""
    with pytest.raises(ValueError, match="header") as error:
        parse_headers(text)
    assert "hunter2" not in str(error.value)


@given(st.integers(1, 2**31 - 1))
def test_a_written_size_is_read_back(size: int) -> None:
    """Sizes survive being shown."""
    assert parse_size(format_size(size)) == size


@given(st.integers(0, 10**8))
def test_a_written_duration_is_read_back(milliseconds: int) -> None:
    """Durations survive being shown."""
    assert parse_duration(format_duration(milliseconds / 1000)) == pytest.approx(milliseconds / 1000)


@pytest.mark.parametrize(
    ("text", "loopback"),
    [
        ("127.0.0.1:1", True),
        ("127.8.9.10:1", True),
        ("[::1]:1", True),
        ("LocalHost:1", True),
        ("unix:/s", True),
        ("0.0.0.0:1", False),
        ("[::]:1", False),
        ("10.0.0.1:1", False),
        ("127.0.0.1.example.com:1", False),
    ],
)
def test_what_counts_as_this_machine_alone(text: str, loopback: bool) -> None:
    """Loopback addresses and socket files cannot be reached from elsewhere."""
    assert ListenAddress.parse(text).is_loopback is loopback


@pytest.mark.parametrize(
    ("text", "reached_at"),
    [
        ("0.0.0.0:1", "127.0.0.1:1"),
        ("[::]:1", "[::1]:1"),
        ("192.0.2.1:1", "192.0.2.1:1"),
        ("localhost:1", "localhost:1"),
        ("unix:/s", "unix:/s"),
    ],
)
def test_all_interfaces_are_reached_over_loopback(text: str, reached_at: str) -> None:
    """An address that stands for every interface is none that anybody can connect to; loopback is one of them."""
    assert str(ListenAddress.parse(text).reachable) == reached_at
