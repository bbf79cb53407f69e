"""TLS and mutual TLS on both receivers and towards both kinds of upstream, with files that change."""

from __future__ import annotations

import asyncio
import shutil
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest

from neatlogs_processor.errors import ConfigError
from neatlogs_processor.reloading import Reloading
from neatlogs_processor.service import Service
from neatlogs_processor.settings import load
from neatlogs_processor.tls import TlsFiles, client_context
from support.certificates import Authority, Pair
from support.http_upstream import PROTOBUF, HttpUpstream
from support.processor import LIMIT, Running, run, running
from support.spans import request, root
from support.upstream import SERVICES, Upstream, export, refused

BODY = request(root())


@dataclass
class Parties:
    """Everybody's certificates: ours, and a stranger's, which nobody trusts."""

    ours: Authority
    stranger: Authority
    server: Pair
    client: Pair
    folder: Path

    @property
    def listener(self) -> dict[str, str]:
        """The flags of a receiver with TLS."""
        return {"tls_cert_file": str(self.server.certificate), "tls_key_file": str(self.server.key)}


@pytest.fixture
def parties(tmp_path: Path) -> Parties:
    ours, stranger = Authority(tmp_path, "ours"), Authority(tmp_path, "stranger")
    return Parties(ours, stranger, ours.issue("server"), ours.issue("client", "client.example"), tmp_path)


def trusting(authority: Path, pair: Pair | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=authority)
    if pair is not None:
        context.load_cert_chain(pair.certificate, pair.key)
    return context


async def by_grpc(processor: Running, authority: Path, pair: Pair | None = None) -> bool:
    """Send over gRPC and say whether it was accepted."""
    credentials = grpc.ssl_channel_credentials(
        authority.read_bytes(),
        *((pair.key.read_bytes(), pair.certificate.read_bytes()) if pair else ()),
    )
    port = processor.target.rpartition(":")[2]
    async with grpc.aio.secure_channel(
        # Each channel makes its own connection: a shared one would know nothing of changed files.
        f"localhost:{port}",
        credentials,
        options=[("grpc.use_local_subchannel_pool", 1)],
    ) as channel:
        try:
            await channel.unary_unary(f"/{SERVICES['traces']}/Export")(BODY, timeout=LIMIT)
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.UNAVAILABLE:
                raise
            return False
    return True


async def by_http(processor: Running, authority: Path, pair: Pair | None = None) -> bool:
    """Send over HTTP and say whether it was accepted."""
    port = processor.http.rpartition(":")[2]
    context = trusting(authority, pair)
    async with httpx.AsyncClient(verify=context, trust_env=False, timeout=LIMIT) as client:
        try:
            answer = await client.post(
                f"https://localhost:{port}/v1/traces", content=BODY, headers={"content-type": PROTOBUF}
            )
        except (httpx.TransportError, ssl.SSLError):
            return False
    assert answer.status_code == 200
    return True


SENDERS = pytest.mark.parametrize("send", [by_grpc, by_http])


@SENDERS
async def test_receivers_speak_tls(parties: Parties, send: Any) -> None:
    """Who trusts the authority is served; who trusts another one sends nothing."""
    async with Upstream() as upstream, running(upstream_endpoint=upstream.endpoint, **parties.listener) as processor:
        assert await send(processor, parties.ours.certificate)
        assert not await send(processor, parties.stranger.certificate)
    assert len(upstream.received) == 1


async def test_a_receiver_with_tls_does_not_speak_plainly(parties: Parties) -> None:
    """There is no way around TLS on its port."""
    async with Upstream() as upstream, running(upstream_endpoint=upstream.endpoint, **parties.listener) as processor:
        error = await refused(processor.target, BODY)
        assert error.code() is grpc.StatusCode.UNAVAILABLE
        async with httpx.AsyncClient(trust_env=False) as client:
            with pytest.raises(httpx.TransportError):
                await client.post(f"http://{processor.http}/v1/traces", content=BODY)
    assert upstream.received == []


@SENDERS
async def test_mutual_tls_asks_for_a_certificate(parties: Parties, send: Any) -> None:
    """Only a client whose certificate one of the named authorities signed is served."""
    flags = {**parties.listener, "tls_client_ca_file": str(parties.ours.certificate)}
    async with Upstream() as upstream, running(upstream_endpoint=upstream.endpoint, **flags) as processor:
        assert await send(processor, parties.ours.certificate, parties.client)
        assert not await send(processor, parties.ours.certificate)
        assert not await send(processor, parties.ours.certificate, parties.stranger.issue("client"))
    assert len(upstream.received) == 1


@SENDERS
async def test_changed_files_count_for_new_connections(parties: Parties, send: Any) -> None:
    """A new certificate and new authorities are used without a restart, and what they replaced is not."""
    flags = {**parties.listener, "tls_client_ca_file": str(parties.folder / "clients.pem")}
    shutil.copy(parties.ours.certificate, flags["tls_client_ca_file"])
    theirs = parties.stranger.issue("client")
    async with Upstream() as upstream, running(upstream_endpoint=upstream.endpoint, **flags) as processor:
        assert await send(processor, parties.ours.certificate, parties.client)
        replacement = parties.stranger.issue("server")
        shutil.copy(parties.stranger.certificate, flags["tls_client_ca_file"])
        replacement.key.replace(parties.server.key)
        replacement.certificate.replace(parties.server.certificate)
        await _until(lambda: send(processor, parties.stranger.certificate, theirs))
        assert not await send(processor, parties.ours.certificate, parties.client)


async def test_connections_that_stand_go_on(parties: Parties) -> None:
    """A change of the files breaks no connection."""
    port_options = [("grpc.use_local_subchannel_pool", 1)]
    async with Upstream() as upstream, running(upstream_endpoint=upstream.endpoint, **parties.listener) as processor:
        credentials = grpc.ssl_channel_credentials(parties.ours.certificate.read_bytes())
        port = processor.target.rpartition(":")[2]
        async with grpc.aio.secure_channel(f"localhost:{port}", credentials, options=port_options) as channel:
            call = channel.unary_unary(f"/{SERVICES['traces']}/Export")
            await call(BODY, timeout=LIMIT)
            replacement = parties.stranger.issue("server")
            replacement.key.replace(parties.server.key)
            replacement.certificate.replace(parties.server.certificate)
            await _until(lambda: by_grpc(processor, parties.stranger.certificate))
            await call(BODY, timeout=LIMIT)


def test_what_was_made_of_files_is_made_anew_when_they_change(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Files are looked at once a second at most; a failure keeps the value and is logged once for each change."""
    path, now = tmp_path / "file", 0.0
    path.write_text("1")

    def read() -> int:
        try:
            return int(path.read_text())
        except (OSError, ValueError):
            raise ConfigError("--flag: no number") from None

    value = Reloading([path], read, clock=lambda: now)
    path.write_text("22")
    assert value.get() == 1
    now = 1.0
    assert value.get() == 22
    path.write_text("broken")
    now = 2.0
    assert value.get() == 22
    now = 3.0
    assert value.get() == 22
    path.unlink()
    now = 4.0
    assert value.get() == 22
    path.write_text("333")
    now = 5.0
    assert value.get() == 333
    assert [record.message for record in caplog.records if record.levelname == "ERROR"] == [
        "--flag: no number; what was read before stays in use"
    ] * 2


@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
async def test_the_upstream_s_certificate_is_checked(parties: Parties, protocol: str) -> None:
    """A private authority is trusted where its file is named, and nobody else is."""
    flags = {"upstream_protocol": protocol, "upstream_timeout": "500ms"}
    async with _upstream(protocol, parties) as upstream:
        endpoint = f"https://localhost:{upstream.port}"
        trusted = {"upstream_endpoint": endpoint, "upstream_ca_file": str(parties.ours.certificate), **flags}
        async with running(**trusted) as processor:
            await export(processor.target, BODY)
        wrong = {**trusted, "upstream_ca_file": str(parties.stranger.certificate)}
        for untrusted in (wrong, {"upstream_endpoint": endpoint, **flags}):
            async with running(**untrusted) as processor:
                error = await refused(processor.target, BODY)
            assert error.code() is grpc.StatusCode.UNAVAILABLE
    assert len(upstream.received) == 1


@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
async def test_the_upstream_may_ask_for_a_certificate(parties: Parties, protocol: str) -> None:
    """Mutual TLS towards the upstream; when the files change, the new certificate is shown without a restart."""
    shown = parties.stranger.issue("shown")
    flags = {
        "upstream_protocol": protocol,
        "upstream_timeout": "500ms",
        "upstream_ca_file": str(parties.ours.certificate),
        "upstream_cert_file": str(shown.certificate),
        "upstream_key_file": str(shown.key),
    }
    async with _upstream(protocol, parties, clients=parties.ours) as upstream:
        flags["upstream_endpoint"] = f"https://localhost:{upstream.port}"
        async with running(**flags) as processor:
            assert (await refused(processor.target, BODY)).code() is grpc.StatusCode.UNAVAILABLE
            shutil.copy(parties.client.key, shown.key)
            shutil.copy(parties.client.certificate, shown.certificate)

            async def accepted() -> bool:
                try:
                    await export(processor.target, BODY)
                except grpc.aio.AioRpcError:
                    return False
                return True

            await _until(accepted)
    assert len(upstream.received) == 1


async def test_sockets_of_the_machine_stay_plain(parties: Parties, tmp_path_factory: pytest.TempPathFactory) -> None:
    """What does not leave the machine needs no TLS: socket files are plain beside a port with TLS."""
    path = tmp_path_factory.mktemp("s") / "otlp.sock"
    async with Upstream() as upstream:
        flags = {"upstream_endpoint": upstream.endpoint, "grpc_listen": f"unix:{path}", **parties.listener}
        async with running(**flags) as processor:
            await export(processor.target, BODY)
            assert await by_http(processor, parties.ours.certificate)


@pytest.mark.parametrize("admin", ["127.0.0.1:0", "unix"])
async def test_health_can_be_asked_where_receivers_speak_tls(
    parties: Parties, tmp_path_factory: pytest.TempPathFactory, admin: str
) -> None:
    """The health command has no certificate and trusts no name, so it asks the admin listener."""
    if admin == "unix":
        admin = f"unix:{tmp_path_factory.mktemp('s') / 'admin.sock'}"
    flags = ("--tls-cert-file", str(parties.server.certificate), "--tls-key-file", str(parties.server.key))
    async with running(console=True, admin_listen=admin, **parties.listener) as processor:
        alive = await run("health", "--admin-listen", processor.admin, *flags)
    gone = await run("health", "--admin-listen", processor.admin, *flags)
    unanswerable = await run("health", "--admin-listen", "none", *flags)
    assert (alive.code, gone.code, unanswerable.code) == (0, 1, 2)
    assert "--admin-listen" in unanswerable.stderr


@pytest.mark.parametrize("case", ["missing", "no pem", "not its key", "swapped", "encrypted", "authorities"])
@pytest.mark.parametrize("side", ["tls", "upstream"])
async def test_bad_files_are_named_in_one_line(parties: Parties, case: str, side: str) -> None:
    """A file that cannot be used is refused by its name and its flag, and no password is asked for."""
    pair, authorities = parties.server, parties.ours.certificate
    flag, nonsense = f"--{side}-cert-file", parties.folder / "nonsense.pem"
    nonsense.write_text("nonsense")
    named: Path = pair.certificate
    if case == "missing":
        named = parties.folder / "nowhere.pem"
        pair = Pair(named, pair.key)
    elif case == "no pem":
        named, pair = nonsense, Pair(nonsense, pair.key)
    elif case == "not its key":
        flag, named = f"--{side}-key-file", parties.client.key
        pair = Pair(pair.certificate, named)
    elif case == "swapped":
        named, pair = pair.key, Pair(pair.key, pair.certificate)
    elif case == "encrypted":
        named = pair.certificate
        pair = Pair(named, _encrypted(pair.key))
    else:
        flag = "--tls-client-ca-file" if side == "tls" else "--upstream-ca-file"
        named = authorities = nonsense
    ca_flag = "--tls-client-ca-file" if side == "tls" else "--upstream-ca-file"
    flags = {
        "upstream_endpoint": "https://localhost:1",
        f"{side}_cert_file": str(pair.certificate),
        f"{side}_key_file": str(pair.key),
        ca_flag[2:].replace("-", "_"): str(authorities),
    }
    with pytest.raises(ConfigError) as error:
        Service(load(flags, {}).settings)
    (line,) = str(error.value).splitlines()
    assert flag in line
    assert str(named) in line


async def test_a_bad_file_ends_the_start(parties: Parties) -> None:
    """The program says it in one line and ends with exit code 2."""
    flags = ("--tls-cert-file", str(parties.server.certificate), "--tls-key-file", str(parties.client.key))
    finished = await run("--console", "--grpc-listen", "127.0.0.1:0", *flags)
    assert finished.code == 2
    (line,) = finished.stderr.splitlines()
    assert line.startswith("neatlogs-processor: --tls-key-file: ")


def test_a_client_context_trusts_the_system_unless_told_otherwise(parties: Parties) -> None:
    """Without a file of authorities the usual ones count; they are not added to those of a file."""
    usual = client_context(TlsFiles(None, None, None, "--cert", "--key", "--ca"))
    assert isinstance(usual, ssl.SSLContext)
    assert usual.check_hostname


def _upstream(protocol: str, parties: Parties, clients: Authority | None = None) -> Any:
    if protocol == "grpc":
        return Upstream(
            tls=(parties.server.key, parties.server.certificate), client_ca=clients.certificate if clients else None
        )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(parties.server.certificate, parties.server.key)
    if clients is not None:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(clients.certificate)
    return HttpUpstream(tls=context)


def _encrypted(key: Path) -> Path:
    from cryptography.hazmat.primitives.serialization import (
        BestAvailableEncryption,
        Encoding,
        PrivateFormat,
        load_pem_private_key,
    )

    path = key.with_suffix(".encrypted")
    private = load_pem_private_key(key.read_bytes(), None)
    path.write_bytes(
        private.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, BestAvailableEncryption(b"secret"))
    )
    return path


async def _until(succeeds: Callable[[], Awaitable[bool]]) -> None:
    """Try until it succeeds; the files are looked at once a second."""
    loop = asyncio.get_running_loop()
    end = loop.time() + LIMIT
    while not await succeeds():
        assert loop.time() < end, "the change of the files never counted"
        await asyncio.sleep(0.1)
