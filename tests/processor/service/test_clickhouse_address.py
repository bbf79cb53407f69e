"""How a store on ClickHouse is written, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from neatlogs_processor.errors import ConfigError
from neatlogs_processor.formats import ClickHouseAddress
from neatlogs_processor.settings import check_together, load
from neatlogs_processor.store.clickhouse.connection import ClickHouseLogin, read_login

ADDRESS = ClickHouseAddress("host", 8123)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("clickhouse://host", ADDRESS),
        ("clickhouse://me@host:9000/traces", ClickHouseAddress("host", 9000, "me", "traces")),
        ("clickhouses://host/traces", ClickHouseAddress("host", 8443, "default", "traces", tls=True)),
        ("clickhouse://host/traces?secure=1", ClickHouseAddress("host", 8443, "default", "traces", tls=True)),
        ("CLICKHOUSE://[::1]:8123", ClickHouseAddress("::1", 8123)),
        ("clickhouse://a%40b@host", ClickHouseAddress("host", 8123, "a@b")),
    ],
)
def test_an_address_is_read_and_written(text: str, address: ClickHouseAddress) -> None:
    """What is left out is ClickHouse's own default, and what is written can be read again."""
    assert ClickHouseAddress.parse(text) == address
    assert ClickHouseAddress.parse(str(address)) == address


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("clickhouse://", "a host and a port are needed"),
        ("clickhouse://@host", "write clickhouse://user@host:8123/database"),
        ("clickhouse://host:0", "write clickhouse://user@host:8123/database"),
        ("clickhouse://host:x", "'x' is not a port"),
        ("clickhouse://host/a-b", "'a-b' is not a name of a database"),
        ("clickhouse://host/a/b", "is not a name of a database"),
        ("clickhouse://host/db?compress=1", "'compress=1' is not known here"),
        ("postgres://host/db", "write a path, clickhouse://user@host:8123/database, or none"),
    ],
)
def test_what_cannot_be_used_is_answered_with_what_to_write(text: str, says: str) -> None:
    """One line, as for every setting."""
    with pytest.raises(ConfigError) as refused:
        load({"store": text}, {})
    assert says in str(refused.value)


@pytest.mark.parametrize("password", ["secret", "se/cr@et", ""])
def test_a_password_is_not_written_into_an_address(password: str) -> None:
    """A process list shows it; the message says where it belongs, and does not repeat it."""
    with pytest.raises(ConfigError, match="--store-password-file, or set CLICKHOUSE_PASSWORD") as refused:
        load({"store": f"clickhouse://me:{password}@host/db"}, {})
    assert "se" + "cr" not in str(refused.value).replace("process", "")


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"store_password_file": "/x"}, "--store-password-file has no effect without --store clickhouse://"),
        ({"store": "clickhouse://h", "store_ca_file": "/x"}, "--store-ca-file has no effect without TLS"),
        ({"queue_dir": "/x"}, "name an upstream with --upstream-endpoint, or a store on ClickHouse"),
    ],
)
def test_settings_that_have_no_effect_are_refused(settings: dict[str, str], says: str) -> None:
    """Somebody who writes them means something by them."""
    with pytest.raises(ConfigError) as refused:
        check_together(load(settings, {}).settings)
    assert says in str(refused.value)


def test_a_queue_may_stand_before_clickhouse() -> None:
    """It is somewhere to deliver to."""
    check_together(load({"store": "clickhouse://h", "queue_dir": "/x"}, {}).settings)


def test_the_password_comes_from_the_file_or_else_from_the_environment(tmp_path: Path) -> None:
    """Its first line counts, and no repr shows it."""
    file = tmp_path / "password"
    file.write_text("from the file\n")
    environ = {"CLICKHOUSE_PASSWORD": "from the environment"}
    login = read_login(ADDRESS, password_file=file, authorities=None, environ=environ)
    assert login == ClickHouseLogin(ADDRESS, "from the file")
    assert "file" not in repr(login)
    assert read_login(ADDRESS, password_file=None, authorities=None, environ=environ).password == "from the environment"
    assert read_login(ADDRESS, password_file=None, authorities=None, environ={}).password == ""


@pytest.mark.parametrize(
    ("content", "says"), [(None, "cannot read"), (b"", "is empty"), (b"\xff", "is not UTF-8 text")]
)
def test_a_password_file_that_cannot_be_used_is_named(tmp_path: Path, content: bytes | None, says: str) -> None:
    """Before anything starts."""
    file = tmp_path / "password"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ConfigError, match=f"--store-password-file: .*{says}"):
        read_login(ADDRESS, password_file=file, authorities=None, environ={})


def test_certificates_that_are_none_are_refused(tmp_path: Path) -> None:
    """TLS that trusts nobody would fail at the first request."""
    file = tmp_path / "ca.pem"
    file.write_text("hello")
    with pytest.raises(ConfigError, match=r"--store-ca-file: .* cannot be read, or holds no PEM certificates"):
        read_login(ADDRESS, password_file=None, authorities=file, environ={})
