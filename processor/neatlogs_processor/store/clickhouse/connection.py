"""Connecting to a ClickHouse server, and what its errors mean to whoever writes."""

from __future__ import annotations

import logging
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from neatlogs_processor.errors import ConfigError, ProcessorError
from neatlogs_processor.formats import ClickHouseAddress

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

CONNECT_SECONDS: Final = 5
"""How long it may take to reach the server."""
PASSWORD_VARIABLE: Final = "CLICKHOUSE_PASSWORD"  # noqa: S105  # the variable's name, which ClickHouse's own client reads too

# https://github.com/ClickHouse/ClickHouse/blob/master/src/Common/ErrorCodes.cpp
_NO_TABLES: Final = frozenset({10, 16, 47, 60, 81})
_NOT_LET_IN: Final = frozenset({192, 193, 194, 497, 516})
_NO_ROOM: Final = frozenset({243, 76, 49001})
_TOO_MANY_PARTS: Final = 252
_READ_ONLY: Final = frozenset({164, 242})
_OF_DATA: Final = frozenset({6, 26, 27, 33, 38, 41, 53, 69, 70, 72, 117, 131, 190, 321, 349, 407, 410, 441})
"""The rows themselves are refused: they cannot be read, or are too large."""


@dataclass(frozen=True)
class ClickHouseLogin:
    """Where a database is, and how to get in.

    Attributes:
        address: Where.
        password: Of its user; empty for none.
        authorities: PEM certificates that TLS trusts, instead of the usual ones.
    """

    address: ClickHouseAddress
    password: str = ""
    authorities: Path | None = None

    @property
    def can_be_overheard(self) -> bool:
        """Whether there is a password, and it leaves this machine without TLS."""
        return bool(self.password) and not (self.address.tls or self.address.is_loopback)

    def __repr__(self) -> str:
        return f"ClickHouseLogin({self.address})"


class ClickHouseError(ProcessorError):
    """The server did not do it.

    Args:
        message: What that means and what to do, without what the server said: it may quote rows.
        code: ClickHouse's error code; `None` where the server did not answer.
    """

    def __init__(self, message: str, *, code: int | None) -> None:
        super().__init__(message)
        self.code = code

    @property
    def is_about_data(self) -> bool:
        """Whether the rows were refused, and will be again."""
        return self.code in _OF_DATA

    @property
    def is_about_setup(self) -> bool:
        """Whether it goes on until somebody changes the server or the settings."""
        return self.code in _NO_TABLES | _NOT_LET_IN


def read_login(
    address: ClickHouseAddress, *, password_file: Path | None, authorities: Path | None, environ: Mapping[str, str]
) -> ClickHouseLogin:
    """Return how to get into a database.

    Args:
        address: Where it is.
        password_file: Its first line is the password.
        authorities: PEM certificates.
        environ: The environment; `CLICKHOUSE_PASSWORD` counts where there is no file.

    Raises:
        ConfigError: A file cannot be used.
    """
    password = environ.get(PASSWORD_VARIABLE, "")
    if password_file is not None:
        try:
            password = password_file.read_text(encoding="utf-8").partition("\n")[0].rstrip("\r")
        except OSError as error:
            raise ConfigError(f"--store-password-file: cannot read {password_file} ({error.strerror})") from None
        except UnicodeDecodeError:
            raise ConfigError(f"--store-password-file: {password_file} is not UTF-8 text") from None
        if not password:
            raise ConfigError(f"--store-password-file: {password_file} is empty")
    if authorities is not None:
        try:
            ssl.create_default_context(cafile=str(authorities))
        except (OSError, ssl.SSLError):
            raise ConfigError(f"--store-ca-file: {authorities} cannot be read, or holds no PEM certificates") from None
    return ClickHouseLogin(address, password, authorities)


def connect(login: ClickHouseLogin, *, database: str | None = None, patience: float = 300.0) -> Client:
    """Return a client, once the server has answered. Several threads may use it at the same time.

    Args:
        login: Where, and how to get in.
        database: Another database than the address names: what is there when that one is not.
        patience: Seconds that a statement may take.

    Raises:
        ConfigError: clickhouse-connect is not installed.
        Exception: Of clickhouse-connect, or of the connection: see `explain`.
    """
    try:
        import clickhouse_connect
    except ImportError:
        raise ConfigError(
            "--store clickhouse://... needs a package that is not installed:"
            " pip install 'neatlogs-otel[processor,clickhouse]'"
        ) from None
    # Both log what they do again, with its URL; we say what matters of it.
    for name in ("clickhouse_connect", "urllib3"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    address = login.address
    return clickhouse_connect.get_client(
        host=address.host,
        port=address.port,
        username=address.user,
        password=login.password,
        database=address.database if database is None else database,
        secure=address.tls,
        ca_cert=None if login.authorities is None else str(login.authorities),
        connect_timeout=CONNECT_SECONDS,
        send_receive_timeout=patience,
        # A session would make its statements wait for each other.
        autogenerate_session_id=False,
        # Repetition is decided here, where it is known whether it can count twice.
        query_retries=0,
        # In a URL there is little room for values, and proxies write it into their logs.
        form_encode_query_params=True,
        compress="lz4",
        client_name="neatlogs-processor",
    )


def explain(error: Exception, address: ClickHouseAddress) -> ClickHouseError:
    """Return what an exception of the client means. What the server said is left out: it quotes statements and rows.

    Raises:
        Exception: The exception itself, where it is none of the client or of the connection.
    """
    from clickhouse_connect.driver.exceptions import ClickHouseError as ServerError
    from urllib3.exceptions import HTTPError

    if isinstance(error, ServerError):
        code = getattr(error, "code", None)
        return ClickHouseError(_meaning(code, address), code=code)
    if isinstance(error, (HTTPError, OSError)):
        return ClickHouseError(_meaning(None, address), code=None)
    raise error


def _meaning(code: int | None, address: ClickHouseAddress) -> str:
    where = f"ClickHouse at {address.host}:{address.port}"
    if code is None:
        return f"{where} cannot be reached"
    if code in _NO_TABLES:
        return (
            f"the tables of the store are not in the database {address.database}, or not all of them;"
            f" neatlogs-processor store migrate --store {address} makes them"
        )
    if code in _NOT_LET_IN:
        return f"{where} does not let {address.user} in, or not so far (error {code}); see --store-password-file"
    if code in _NO_ROOM:
        return f"{where} has no room on its disk (error {code})"
    if code == _TOO_MANY_PARTS:
        return f"{where} is behind with merging (too many parts); fewer, larger inserts help: --store-batch-time"
    if code in _READ_ONLY:
        return f"{where} is read-only at the moment (error {code})"
    return f"{where} did not do it (error {code}); its own log says why"
