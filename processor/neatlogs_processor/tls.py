"""TLS for receivers and upstream, from PEM files that may change while the processor runs.

What connects after a change uses the new files; connections that stand go on as they are.
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import grpc

from neatlogs_processor.errors import ConfigError
from neatlogs_processor.reloading import Reloading


@dataclass(frozen=True)
class TlsFiles:
    """PEM files, and the flags that named them.

    Attributes:
        certificate: This side's certificate and the chain above it; `None` where this side shows none.
        key: Its private key, not encrypted.
        authorities: Who may have signed the other side's certificate. On a server, `None` asks clients for no
            certificate; on a client, it means the authorities that the system trusts.
        certificate_flag: The flag of `certificate`, for messages; so are the next two.
    """

    certificate: Path | None
    key: Path | None
    authorities: Path | None
    certificate_flag: str
    key_flag: str
    authorities_flag: str

    @property
    def paths(self) -> tuple[Path, ...]:
        """The files that there are."""
        return tuple(path for path in (self.certificate, self.key, self.authorities) if path is not None)


def listener_files(certificate: Path, key: Path, client_authorities: Path | None) -> TlsFiles:
    """Return the files of the receivers."""
    return TlsFiles(certificate, key, client_authorities, "--tls-cert-file", "--tls-key-file", "--tls-client-ca-file")


def upstream_files(certificate: Path | None, key: Path | None, authorities: Path | None) -> TlsFiles:
    """Return the files for the connection to the upstream."""
    return TlsFiles(certificate, key, authorities, "--upstream-cert-file", "--upstream-key-file", "--upstream-ca-file")


@dataclass(frozen=True)
class Pem:
    """The content of `TlsFiles`, as gRPC wants it."""

    certificate: bytes | None
    key: bytes | None
    authorities: bytes | None


def read_pem(files: TlsFiles) -> Pem:
    """Read the files, and check that they can be used.

    Raises:
        ConfigError: One cannot be read, is not what it should be, or key and certificate do not belong together.
    """
    pem = Pem(
        _content(files.certificate, files.certificate_flag),
        _content(files.key, files.key_flag),
        _content(files.authorities, files.authorities_flag),
    )
    # gRPC itself takes anything and then fails each handshake without a word.
    _load(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), files)
    return pem


def grpc_server_credentials(files: TlsFiles) -> grpc.ServerCredentials:
    """Return credentials for a gRPC server that ask for the files' content at each new connection.

    Raises:
        ConfigError: See `read_pem`.
    """
    reloading = Reloading(files.paths, lambda: _grpc_configuration(read_pem(files)))
    return grpc.dynamic_ssl_server_credentials(
        reloading.get(), reloading.get, require_client_authentication=files.authorities is not None
    )


def grpc_channel_credentials(pem: Pem) -> grpc.ChannelCredentials:
    """Return credentials for a gRPC channel."""
    return grpc.ssl_channel_credentials(pem.authorities, pem.key, pem.certificate)


def server_context(files: TlsFiles) -> ssl.SSLContext:
    """Return a context for asyncio servers that speak HTTP/1.1.

    Raises:
        ConfigError: See `read_pem`.
    """

    def make() -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["http/1.1"])
        if files.authorities is not None:
            context.verify_mode = ssl.CERT_REQUIRED
        _load(context, files)
        return context

    return _ReloadingContext.of(Reloading(files.paths, make), ssl.PROTOCOL_TLS_SERVER)


def client_context(files: TlsFiles) -> ssl.SSLContext:
    """Return a context for asyncio clients that speak HTTP/1.1.

    Raises:
        ConfigError: See `read_pem`.
    """

    def make() -> ssl.SSLContext:
        if files.authorities is None:
            context = ssl.create_default_context()
        else:
            # Named authorities replace the system's; they are not added to them.
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["http/1.1"])
        _load(context, files)
        return context

    return _ReloadingContext.of(Reloading(files.paths, make), ssl.PROTOCOL_TLS_CLIENT)


class _ReloadingContext(ssl.SSLContext):
    """Begins each connection with the newest context. asyncio begins every TLS connection with `wrap_bio`.

    A context of OpenSSL can be given another certificate, but it cannot forget an authority; so each change makes a
    whole new one.
    """

    _newest: Reloading[ssl.SSLContext]

    @classmethod
    def of(cls, newest: Reloading[ssl.SSLContext], protocol: int) -> _ReloadingContext:
        context = cls(protocol)
        context._newest = newest
        return context

    def wrap_bio(self, *args: Any, **kwargs: Any) -> ssl.SSLObject:
        return self._newest.get().wrap_bio(*args, **kwargs)


def _grpc_configuration(pem: Pem) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration(
        [(cast("bytes", pem.key), cast("bytes", pem.certificate))], root_certificates=pem.authorities
    )


def _content(path: Path | None, flag: str) -> bytes | None:
    if path is None:
        return None
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{flag}: cannot read {path} ({error.strerror})") from None


def _load(context: ssl.SSLContext, files: TlsFiles) -> None:
    if files.certificate is not None and files.key is not None:
        try:
            # Without a password of ours OpenSSL would ask for one on the terminal, and wait.
            context.load_cert_chain(files.certificate, files.key, password=b"")
        except (ssl.SSLError, ValueError) as error:
            raise ConfigError(_why(files, getattr(error, "reason", None))) from None
        except OSError as error:
            raise ConfigError(f"{files.certificate_flag}: cannot read it or its key ({error.strerror})") from None
    if files.authorities is not None:
        try:
            context.load_verify_locations(files.authorities)
        except (ssl.SSLError, ValueError):
            raise ConfigError(
                f"{files.authorities_flag}: {files.authorities} holds no certificates in PEM format"
            ) from None
        except OSError as error:
            raise ConfigError(f"{files.authorities_flag}: cannot read {files.authorities} ({error.strerror})") from None


def _why(files: TlsFiles, reason: str | None) -> str:
    if reason == "KEY_VALUES_MISMATCH":
        return f"{files.key_flag}: {files.key} is not the key of the certificate in {files.certificate}"
    return (
        f"{files.certificate_flag}: {files.certificate} with {files.key_flag} {files.key}: not a certificate and its"
        " key in PEM format, without a password"
    )
