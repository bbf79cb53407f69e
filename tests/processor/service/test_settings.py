"""Flags, variables, file and defaults: who wins, and what is said about mistakes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from neatlogs_processor.errors import ConfigError
from neatlogs_processor.formats import Endpoint
from neatlogs_processor.settings import Loaded, check_together, entries, load

VARIABLE = "NEATLOGS_PROCESSOR_UPSTREAM_TIMEOUT"


def from_file(tmp_path: Path, text: str, flags: dict[str, Any] | None = None, **environ: str) -> Loaded:
    path = tmp_path / "config.toml"
    path.write_text(text, encoding="utf-8")
    return load(flags or {}, environ, config=path)


def test_a_flag_wins_over_a_variable_over_the_file_over_the_default(tmp_path: Path) -> None:
    """Each layer hides the one below, and the source of the value is known."""
    file = 'upstream_timeout = "2s"'
    layers = [
        (load({}, {}), 8.0, "default"),
        (from_file(tmp_path, file), 2.0, f"file {tmp_path / 'config.toml'}"),
        (from_file(tmp_path, file, **{VARIABLE: "3s"}), 3.0, f"variable {VARIABLE}"),
        (from_file(tmp_path, file, {"upstream_timeout": "4s"}, **{VARIABLE: "3s"}), 4.0, "flag --upstream-timeout"),
    ]
    assert [(loaded.settings.upstream_timeout, loaded.sources["upstream_timeout"]) for loaded, _, _ in layers] == [
        (value, source) for _, value, source in layers
    ]


def test_a_file_may_use_the_types_of_toml(tmp_path: Path) -> None:
    """Numbers, lists, tables and booleans need not be written as text."""
    settings = from_file(
        tmp_path,
        """
        upstream_endpoint = "https://collector:4317"
        max_message_size = 1048576
        max_concurrent_requests = 7
        roots = "entry"
        entry_services = ["gateway", "edge"]
        console = true
        [upstream_headers]
        Authorization = "Bearer a,b"
        """,
    ).settings
    assert settings.upstream_endpoint == Endpoint("collector", 4317, tls=True)
    assert (settings.max_message_size, settings.max_concurrent_requests) == (2**20, 7)
    assert (settings.entry_services, settings.console) == (("gateway", "edge"), True)
    assert settings.upstream_headers["authorization"].get_secret_value() == "Bearer a,b"


def test_everything_can_be_written_as_text() -> None:
    """A variable can express every setting."""
    written = {
        "GRPC_LISTEN": "unix:/run/otlp.sock",
        "ALLOW_INSECURE": "grpc",
        "MAX_MESSAGE_SIZE": "1MiB",
        "MAX_CONCURRENT_REQUESTS": "3",
        "SHUTDOWN_TIMEOUT": "0",
        "UPSTREAM_ENDPOINT": "collector:4317",
        "UPSTREAM_PROTOCOL": "grpc",
        "UPSTREAM_HEADERS": "a=1,b=2",
        "UPSTREAM_TIMEOUT": "500ms",
        "UPSTREAM_COMPRESSION": "gzip",
        "FORWARD_HEADERS": "X-Api-Key, traceparent",
        "ROOTS": "entry",
        "ENTRY_SERVICES": " gateway , edge ",
        "ACCEPT": "app.user=user, app.user.*",
        "ACCEPT_FROM": "langfuse,logfire,langfuse",
        "ACCEPT_STRIP": "true",
        "EMIT": "enduser.id",
        "EMIT_FOR": "phoenix",
        "CONSOLE": "yes",
        "LOG_LEVEL": "debug",
        "LOG_FORMAT": "json",
    }
    settings = load({}, {f"NEATLOGS_PROCESSOR_{name}": text for name, text in written.items()}).settings
    assert settings.forward_headers == ("x-api-key", "traceparent")
    assert settings.entry_services == ("gateway", "edge")
    assert [str(one) for one in settings.accept] == ["app.user", "app.user.*"]
    assert (settings.accept_from, settings.emit_for) == (("langfuse", "logfire"), ("phoenix",))
    assert (settings.upstream_timeout, settings.shutdown_timeout, settings.console) == (0.5, 0.0, True)


def test_the_headers_file_wins_over_the_flag(tmp_path: Path) -> None:
    """Headers from the file are added to those of the flag and replace equal names."""
    path = tmp_path / "headers"
    path.write_text("a=file\nc=3\n", encoding="utf-8")
    settings = load({"upstream_headers": "a=flag,b=2", "upstream_headers_file": str(path)}, {}).settings
    assert {name: value.get_secret_value() for name, value in settings.upstream_headers.items()} == {
        "a": "file",
        "b": "2",
        "c": "3",
    }


def test_the_bare_otel_variables_are_not_read() -> None:
    """They are meant for applications, and in a shared environment point at this processor."""
    environ = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4317",
        "OTEL_EXPORTER_OTLP_HEADERS": "x-api-key=secret",
        "OTEL_EXPORTER_OTLP_TIMEOUT": "1",
    }
    assert load({}, environ).settings == load({}, {}).settings


def test_the_variables_that_kubernetes_makes_for_a_service_are_no_mistakes() -> None:
    """A Service named neatlogs-processor does not keep the pods beside it from starting."""
    environ = {
        "NEATLOGS_PROCESSOR_SERVICE_HOST": "10.0.0.11",
        "NEATLOGS_PROCESSOR_SERVICE_PORT": "4317",
        "NEATLOGS_PROCESSOR_SERVICE_PORT_OTLP_GRPC": "4317",
        "NEATLOGS_PROCESSOR_PORT": "tcp://10.0.0.11:4317",
        "NEATLOGS_PROCESSOR_PORT_4317_TCP": "tcp://10.0.0.11:4317",
        "NEATLOGS_PROCESSOR_PORT_4317_TCP_PROTO": "tcp",
        "NEATLOGS_PROCESSOR_PORT_4317_TCP_PORT": "4317",
        "NEATLOGS_PROCESSOR_PORT_4317_TCP_ADDR": "10.0.0.11",
    }
    assert load({}, environ).settings == load({}, {}).settings


def test_an_empty_variable_counts_as_unset() -> None:
    """A deployment template that leaves a variable empty gets the default."""
    loaded = load({}, {VARIABLE: "", "NEATLOGS_PROCESSOR_UPSTREAM_ENDPOINT": ""})
    assert (loaded.settings, loaded.sources[VARIABLE[len("NEATLOGS_PROCESSOR_") :].lower()]) == (
        load({}, {}).settings,
        "default",
    )


MISTAKES: list[tuple[dict[str, str], list[str]]] = [
    ({"NEATLOGS_PROCESSOR_UPSTREAM_TIMEOUT": "soon"}, [VARIABLE, "'soon'", "write 8s"]),
    ({"NEATLOGS_PROCESSOR_UPSTREAM_TIMEOUT": "0s"}, [VARIABLE, "greater than 0"]),
    ({"NEATLOGS_PROCESSOR_UPSTREAM_TIMOUT": "8s"}, ["NEATLOGS_PROCESSOR_UPSTREAM_TIMOUT", "did you mean", VARIABLE]),
    ({"NEATLOGS_PROCESSOR_upstream_timeout": "8s"}, ["unknown variable"]),
    ({"NEATLOGS_PROCESSOR_QQQQQ": "8s"}, ["NEATLOGS_PROCESSOR_QQQQQ", "--help"]),
    ({"NEATLOGS_PROCESSOR_GRPC_LISTEN": "4317"}, ["GRPC_LISTEN", "127.0.0.1:4317"]),
    ({"NEATLOGS_PROCESSOR_HTTP_LISTEN": "nowhere"}, ["HTTP_LISTEN", "write 127.0.0.1:4318 or none"]),
    ({"NEATLOGS_PROCESSOR_ADMIN_LISTEN": "x:admin"}, ["ADMIN_LISTEN", "write 127.0.0.1:4319 or none"]),
    ({"NEATLOGS_PROCESSOR_QUEUE_MAX_AGE": "forever"}, ["QUEUE_MAX_AGE", "write 72h or 30d"]),
    ({"NEATLOGS_PROCESSOR_QUEUE_MAX_BYTES": "lots"}, ["QUEUE_MAX_BYTES", "write 1GiB or a number of bytes"]),
    ({"NEATLOGS_PROCESSOR_STORE_MAX_AGE": "forever"}, ["STORE_MAX_AGE", "write 30d, 12h or none"]),
    ({"NEATLOGS_PROCESSOR_STORE_MAX_SIZE": "lots"}, ["STORE_MAX_SIZE", "write 10GiB, a number of bytes or none"]),
    ({"NEATLOGS_PROCESSOR_STORE_MAX_SIZE": "2000000GiB"}, ["STORE_MAX_SIZE", "between 1 byte and 1048576GiB"]),
    ({"NEATLOGS_PROCESSOR_ROOTS": "all"}, ["ROOTS", "'trace' or 'entry'"]),
    ({"NEATLOGS_PROCESSOR_UPSTREAM_PROTOCOL": "carrier-pigeon"}, ["UPSTREAM_PROTOCOL", "'grpc'"]),
    ({"NEATLOGS_PROCESSOR_ALLOW_INSECURE": "all"}, ["ALLOW_INSECURE", "'grpc'"]),
    ({"NEATLOGS_PROCESSOR_EMIT": "neatlogs.end_user.id"}, ["EMIT", "processor's own key"]),
    ({"NEATLOGS_PROCESSOR_EMIT": "service.name"}, ["EMIT", "service.name says which service"]),
    ({"NEATLOGS_PROCESSOR_EMIT_FOR": "phonix"}, ["EMIT_FOR", "'phonix' is not known", "phoenix"]),
    ({"NEATLOGS_PROCESSOR_ACCEPT": "user.id,user.id"}, ["ACCEPT", "user.id stands there twice"]),
    ({"NEATLOGS_PROCESSOR_ACCEPT": "=user"}, ["ACCEPT", "names no key"]),
    ({"NEATLOGS_PROCESSOR_ACCEPT_FROM": "datadog"}, ["ACCEPT_FROM", "'datadog' is not known", "traceloop"]),
    ({"NEATLOGS_PROCESSOR_MAX_CONCURRENT_REQUESTS": "0"}, ["MAX_CONCURRENT_REQUESTS", "1"]),
    ({"NEATLOGS_PROCESSOR_CONSOLE": "maybe"}, ["CONSOLE", "true or false"]),
    ({"NEATLOGS_PROCESSOR_UPSTREAM_HEADERS": "hunter2"}, ["UPSTREAM_HEADERS", "name=value"]),
    ({"NEATLOGS_PROCESSOR_FORWARD_HEADERS": "grpc-timeout"}, ["FORWARD_HEADERS", "grpc-timeout"]),
    ({"NEATLOGS_PROCESSOR_UPSTREAM_HEADERS_FILE": "/nowhere"}, ["--upstream-headers-file", "/nowhere", "No such file"]),
]


@pytest.mark.parametrize(("environ", "says"), MISTAKES)
def test_a_mistake_in_a_variable_is_named_in_one_line(environ: dict[str, str], says: list[str]) -> None:
    """The message names the variable, shows the value unless it is a secret, and says what to write."""
    with pytest.raises(ConfigError) as error:
        load({}, environ)
    message = str(error.value)
    assert "\n" not in message
    assert "hunter2" not in message
    assert all(part in message for part in says), message


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("upstream-timeout = '8s'", ["unknown key 'upstream-timeout'", "did you mean upstream_timeout?"]),
        ("[grpc]\nlisten = 'x'", ["unknown key 'grpc'"]),
        ("upstream_timeout = 8", ["upstream_timeout", "8", "write 8s"]),
        ("store_max_age = 8", ["store_max_age", "8", "write 30d, 12h or none"]),
        ("console = 1", ["console", "true or false"]),
        ("max_message_size = true", ["max_message_size"]),
        ("upstream_headers = ['a=1']", ["upstream_headers", "name=value"]),
        ('upstream_headers = { a = "hunter2\\u0000" }', ["upstream_headers", "printable"]),
        ("forward_headers = 7", ["forward_headers", "separated by commas"]),
        ("grpc_listen = 4317", ["grpc_listen", "4317"]),
        ("upstream_timeout = ", ["is not TOML"]),
    ],
)
def test_a_mistake_in_the_file_is_named_in_one_line(tmp_path: Path, text: str, says: list[str]) -> None:
    """The message names the file and the key."""
    with pytest.raises(ConfigError) as error:
        from_file(tmp_path, text)
    message = str(error.value)
    assert "\n" not in message
    assert "hunter2" not in message
    assert str(tmp_path) in message
    assert all(part in message for part in says), message


def test_a_headers_file_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    """A line without a name, and bytes that are no text, are refused without being shown."""
    path = tmp_path / "headers"
    for content, says in ((b"a=1\nhunter2\n", "line 2"), (b"a=\xff", "UTF-8")):
        path.write_bytes(content)
        with pytest.raises(ConfigError) as error:
            load({"upstream_headers_file": str(path)}, {})
        assert says in str(error.value)
        assert "hunter2" not in str(error.value)


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        ({"store": "none"}, "--upstream-endpoint"),
        ({"store_required": True}, "--store-required"),
        ({"console": True, "roots": "entry"}, "--entry-services"),
        ({"console": True, "entry_services": "edge"}, "--roots entry"),
        ({"console": True, "accept_strip": True}, "--accept or --accept-from"),
        ({"console": True, "accept_strip": True, "emit": "user.id"}, "--accept or --accept-from"),
        ({"console": True, "grpc_listen": "0.0.0.0:4317"}, "--allow-insecure grpc"),
        ({"console": True, "grpc_listen": "[::]:4317"}, "--allow-insecure grpc"),
        ({"upstream_endpoint": "http://collector:4317", "upstream_ca_file": "ca.pem"}, "https://"),
        ({"upstream_endpoint": "http://collector:4317", "upstream_cert_file": "a.pem"}, "https://"),
        ({"upstream_endpoint": "https://collector:4317", "upstream_cert_file": "a"}, "needs --upstream-key-file"),
        ({"upstream_endpoint": "https://collector:4317", "upstream_key_file": "a"}, "needs --upstream-cert-file"),
        ({"upstream_endpoint": "https://collector:4317/otlp"}, "has no path"),
        ({"upstream_endpoint": "https://collector"}, "needs a port"),
        ({"console": True, "tls_cert_file": "a.pem"}, "needs --tls-key-file"),
        ({"console": True, "tls_key_file": "a.pem"}, "needs --tls-cert-file"),
        ({"console": True, "tls_client_ca_file": "a.pem"}, "--tls-cert-file and --tls-key-file"),
        ({"console": True, "max_message_size": "512MiB"}, "--max-bytes-in-flight must be at least twice"),
        ({"console": True, "max_bytes_in_flight": "100MiB"}, "--max-bytes-in-flight must be at least twice"),
        ({"console": True, "browser_keys_file": "keys"}, "name them with --cors-origins"),
        (
            {"console": True, "browser_keys_file": "keys", "cors_origins": "https://a.example", "http_listen": "none"},
            "browsers do not speak OTLP/gRPC",
        ),
        (
            {"console": True, "cors_origins": "https://a.example", "http_listen": "none"},
            "browsers do not speak OTLP/gRPC",
        ),
    ],
)
def test_settings_that_contradict_each_other_are_refused(flags: dict[str, Any], says: str) -> None:
    """What is fine alone and wrong together is said before anything starts."""
    with pytest.raises(ConfigError) as error:
        check_together(load(flags, {}).settings)
    assert says in str(error.value)


@pytest.mark.parametrize(
    "flags",
    [
        {"allow_insecure": "grpc"},
        {"tls_cert_file": "a.pem", "tls_key_file": "a.key"},
        {"auth_tokens_file": "tokens"},
        {"browser_keys_file": "keys", "cors_origins": "https://a.example"},
    ],
)
def test_a_listener_for_other_machines_is_protected_or_named(flags: dict[str, Any]) -> None:
    """With TLS, with keys, or with the listener's name, a bind that others can reach is allowed."""
    check_together(load({"console": True, "grpc_listen": "0.0.0.0:4317", **flags}, {}).settings)


def test_every_setting_says_what_it_is() -> None:
    """Each setting has a description, a group and a name that works as flag and variable."""
    for entry in entries():
        assert entry.description.endswith(".")
        assert entry.meta.group
        assert entry.is_switch or entry.meta.metavar
        assert entry.variable == "NEATLOGS_PROCESSOR_" + entry.flag[2:].replace("-", "_").upper()
