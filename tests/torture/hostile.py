"""Hostile input of every kind at once against a running processor: it goes on serving, and its memory stays flat.

    python tests/torture/hostile.py                        # ten rounds
    python tests/torture/hostile.py --rounds 2 --scale 0.1

A round is silent, dripping and broken connections, floods of connections and of streams, cancelled streams, gzip bombs,
deep and endless JSON, huge headers and requests that are nearly OTLP, on every listener, while a polite client goes on
sending. The first rounds warm up. The exit code is 0 only if the polite client was always served or asked to come
back, all listeners serve afterwards, and resident memory after the last round is near that after the warm-up.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gzip
import os
import re
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import grpc
import grpc.aio
import httpx

# A script's path begins with its own folder; what the tests share lies one up.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from support.corpus import core_corpus
from support.processor import program
from support.spans import child, request, root
from support.upstream import SERVICES, Reply, Upstream
from support.wire_mutations import mutate

_POLITE = request(root(neatlogs__end_user__id="u_812"), child("llm", neatlogs__end_user__id="u_999"))
_EXPORT = f"/{SERVICES['traces']}/Export"
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
# Short, so that a round sees them pass.
_FLAGS = (
    "--http-header-timeout=2s",
    "--body-timeout=3s",
    "--grpc-handshake-timeout=2s",
    "--max-message-size=8MiB",
    "--max-bytes-in-flight=32MiB",
    "--http-max-connections=300",
)
_WARM_UP = 2
_GROWTH_SHARE = 0.10
_GROWTH_BYTES = 24 * 2**20


@dataclass
class Target:
    """The processor under attack.

    Attributes:
        addresses: Host and port of each listener: grpc, http, admin.
        scale: How many of everything, as a share.
        chance: For what differs from round to round.
        polite: What the polite client was answered.
    """

    addresses: dict[str, tuple[str, int]]
    scale: float
    chance: Random
    polite: Counter[str] = field(default_factory=Counter)

    def times(self, number: int) -> int:
        """So many, scaled."""
        return max(2, round(number * self.scale))

    def url(self, listener: str) -> str:
        """Where a listener is."""
        host, port = self.addresses[listener]
        return f"http://{host}:{port}"

    @property
    def grpc(self) -> str:
        """The gRPC receiver's `host:port`."""
        return "{}:{}".format(*self.addresses["grpc"])


async def connection(target: Target, listener: str, *pieces: bytes, pause: float = 0.0, linger: float = 5.0) -> None:
    """Open a connection, write the pieces, and wait until the other end closes it, or for `linger` seconds."""
    with contextlib.suppress(OSError, asyncio.TimeoutError):
        reader, writer = await asyncio.wait_for(asyncio.open_connection(*target.addresses[listener]), 10)
        try:
            for piece in pieces:
                writer.write(piece)
                await asyncio.wait_for(writer.drain(), 10)
                await asyncio.sleep(pause)
            await asyncio.wait_for(read_to_end(reader), linger)
        finally:
            writer.transport.abort()


async def read_to_end(reader: asyncio.StreamReader) -> None:
    """Read what comes, and forget it."""
    while await reader.read(65536):
        pass


def post(path: str = "/v1/traces", content_type: str = "application/x-protobuf", *headers: str) -> bytes:
    """The head of a POST, without the end of its headers."""
    lines = [f"POST {path} HTTP/1.1", "host: x", f"content-type: {content_type}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n"


async def silence(target: Target) -> None:
    """Connections that say nothing, or only a part of the greeting."""
    starts = (b"", b"P", _PREFACE[:10], _PREFACE, b"POST /v1/tr", post(), b"\x16\x03\x01")
    await asyncio.gather(
        *(
            connection(target, listener, starts[number % len(starts)])
            for number in range(target.times(100))
            for listener in target.addresses
        )
    )


async def slowloris(target: Target) -> None:
    """Headers and bodies that drip."""
    header = [post(), *(f"x-{number}: y\r\n".encode() for number in range(20))]
    body = [post("/v1/traces", "application/json", "content-length: 1000000") + b"\r\n", *(b"{ " for _ in range(20))]
    chunks = [post("/v1/logs", "application/json", "transfer-encoding: chunked") + b"\r\n", *(b"1\r\n \r\n",) * 20]
    await asyncio.gather(
        *(
            connection(target, listener, *pieces, pause=0.2)
            for _ in range(target.times(30))
            for listener in ("http", "admin")
            for pieces in (header, body, chunks)
        )
    )


async def connection_flood(target: Target) -> None:
    """Connections that come and go."""
    for _ in range(target.times(10)):
        await asyncio.gather(
            *(connection(target, listener, linger=0.01) for _ in range(50) for listener in target.addresses)
        )


async def garbage(target: Target) -> None:
    """Bytes that are no protocol, and frames that are not in order."""
    frames = _PREFACE + b"\0\0\0\x04\0\0\0\0\0" + target.chance.randbytes(2000)
    pieces = [target.chance.randbytes(5000), frames, b"GET / HTTP/9.9\r\n\r\n", b"\0" * 100_000, b"\r\n" * 50_000]
    await asyncio.gather(
        *(
            connection(target, listener, piece, linger=3)
            for _ in range(target.times(5))
            for listener in target.addresses
            for piece in pieces
        )
    )


async def huge_headers(target: Target) -> None:
    """One header of a megabyte, and headers without number."""
    long = post() + b"x: " + b"y" * 2**20
    many = post() + b"".join(f"x-{number}: {number}\r\n".encode() for number in range(20_000))
    await asyncio.gather(
        *(
            connection(target, listener, head, linger=3)
            for _ in range(target.times(10))
            for listener in ("http", "admin")
            for head in (long, many)
        ),
        *(call(target, b"", (("x", "y" * 100_000),)) for _ in range(target.times(20))),
    )


async def bombs(target: Target) -> None:
    """A gigabyte in a megabyte, over both protocols and every encoding."""
    bomb = gzip.compress(bytes(2**20)) * 1024
    async with httpx.AsyncClient(base_url=target.url("http"), timeout=60) as client:
        await asyncio.gather(
            *(
                quietly(
                    client.post("/v1/traces", content=bomb, headers={"content-encoding": "gzip", "content-type": kind})
                )
                for _ in range(target.times(10))
                for kind in ("application/x-protobuf", "application/json")
            ),
            *(call(target, bytes(2**26), compression=grpc.Compression.Gzip) for _ in range(target.times(4))),
            *(call(target, bytes(2**24)) for _ in range(target.times(4))),
        )


async def json(target: Target) -> None:
    """JSON that is deep, endless, or holds numbers and names without end."""
    nested = b'{"arrayValue":{"values":[' * 20_000
    attribute = b'{"resourceSpans":[{"resource":{"attributes":[{"key":"k","value":'
    texts = [
        b"[" * 2_000_000,
        b'{"a":' * 400_000,
        attribute + nested,
        attribute + b'{"intValue":' + b"9" * 2_000_000,
        attribute + b'{"doubleValue":1e' + b"9" * 1_000_000,
        b"{" + b",".join(b'"x%d":0' % number for number in range(200_000)) + b"}",
        b'{"resourceSpans":[' + b"{}," * 1_000_000 + b"{}]}",
        b'"' + b"\\u0041" * 500_000,
    ]
    async with httpx.AsyncClient(base_url=target.url("http"), timeout=60) as client:
        for text in texts:
            headers = {"content-type": "application/json"}
            await asyncio.gather(
                *(quietly(client.post("/v1/traces", content=text, headers=headers)) for _ in range(target.times(4)))
            )


async def nearly_otlp(target: Target) -> None:
    """Requests that are not quite, over both protocols."""
    seeds = list(core_corpus().values())
    bodies = [mutate(target.chance.choice(seeds), target.chance) for _ in range(target.times(1000))]
    async with httpx.AsyncClient(base_url=target.url("http"), timeout=60) as client:
        for start in range(0, len(bodies), 50):
            some = bodies[start : start + 50]
            headers = {"content-type": "application/x-protobuf"}
            await asyncio.gather(
                *(quietly(client.post("/v1/traces", content=body, headers=headers)) for body in some),
                *(call(target, body) for body in some),
            )


async def crumbs(target: Target) -> None:
    """Bodies of nothing but empty messages, a few kilobytes when compressed: they take longest to walk."""
    body = b"\x0a\x00" * 2**20
    headers = {"content-type": "application/x-protobuf", "content-encoding": "gzip"}
    async with httpx.AsyncClient(base_url=target.url("http"), timeout=60) as client:
        await asyncio.gather(
            *(
                quietly(client.post("/v1/traces", content=gzip.compress(body), headers=headers))
                for _ in range(target.times(4))
            ),
            *(call(target, body, compression=grpc.Compression.Gzip) for _ in range(target.times(4))),
        )


async def streams(target: Target) -> None:
    """More streams than are allowed on one connection, and streams that are cancelled at once."""
    async with grpc.aio.insecure_channel(target.grpc) as channel:
        method: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(_EXPORT)
        calls = [method(_POLITE, timeout=30) for _ in range(target.times(2000))]
        await asyncio.gather(*calls, return_exceptions=True)
        for _ in range(target.times(10)):
            calls = [method(_POLITE, timeout=30) for _ in range(200)]
            await asyncio.sleep(0)
            for one in calls:
                one.cancel()
            await asyncio.gather(*calls, return_exceptions=True)


async def call(
    target: Target,
    body: bytes,
    metadata: tuple[tuple[str, str], ...] = (),
    compression: grpc.Compression | None = None,
) -> grpc.StatusCode:
    """One gRPC request, on a connection of its own; returns how it ended."""
    options = (("grpc.max_send_message_length", -1), ("grpc.use_local_subchannel_pool", 1))
    async with grpc.aio.insecure_channel(target.grpc, options=options) as channel:
        method: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(_EXPORT)
        try:
            await method(body, timeout=30, metadata=metadata, compression=compression)
        except grpc.aio.AioRpcError as error:
            return error.code()
    return grpc.StatusCode.OK


async def quietly(attempt: Awaitable[httpx.Response]) -> int:
    """How an HTTP request was answered; 0 where the connection was closed instead."""
    try:
        return (await attempt).status_code
    except httpx.HTTPError:
        return 0


async def be_polite(target: Target) -> None:
    """Send a request now and then, on connections of our own, over both protocols."""
    headers = {"content-type": "application/x-protobuf"}
    while True:
        target.polite[f"grpc {(await call(target, _POLITE)).name}"] += 1
        async with httpx.AsyncClient(timeout=30) as client:
            status = await quietly(client.post(f"{target.url('http')}/v1/traces", content=_POLITE, headers=headers))
        target.polite[f"http {status}"] += 1
        await asyncio.sleep(0.1)


ATTACKS: tuple[Callable[[Target], Awaitable[None]], ...] = (
    silence,
    slowloris,
    connection_flood,
    garbage,
    huge_headers,
    bombs,
    json,
    nearly_otlp,
    crumbs,
    streams,
)
# Come back, by both protocols; and what a flood of connections leaves of one more: closed before it was accepted.
_SERVED = {"grpc OK", "http 200", "grpc UNAVAILABLE", "http 503", "http 0"}


def resident(pid: int) -> int:
    """Resident bytes of a process."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def serves(target: Target) -> bool:
    """Whether every listener serves again, within the time that slow connections are given."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        headers = {"content-type": "application/x-protobuf"}
        async with httpx.AsyncClient(timeout=10) as client:
            answers = (
                await call(target, _POLITE) is grpc.StatusCode.OK,
                await quietly(client.post(f"{target.url('http')}/v1/traces", content=_POLITE, headers=headers)) == 200,
                await quietly(client.get(f"{target.url('admin')}/readyz")) == 200,
            )
        if all(answers):
            return True
        await asyncio.sleep(0.2)
    return False


async def run(arguments: argparse.Namespace) -> bool:
    """Attack, and print what came of it. Returns whether all held."""
    listeners = [f"--{name}-listen=127.0.0.1:0" for name in ("grpc", "http", "admin")]
    good = True
    memory = []
    async with (
        Upstream(Reply()) as upstream,
        program(*listeners, f"--upstream-endpoint={upstream.endpoint}", *_FLAGS) as under,
    ):
        line = await under.line("is ready")
        found = dict(re.findall(r"(gRPC|HTTP|admin) on 127\.0\.0\.1:(\d+)", line))
        addresses = {name.lower(): ("127.0.0.1", int(port)) for name, port in found.items()}
        target = Target(addresses, arguments.scale, Random(arguments.seed))  # noqa: S311  # to be repeated
        polite = asyncio.create_task(be_polite(target))
        for number in range(arguments.rounds):
            began = time.monotonic()
            if number % 2 == 0:
                await asyncio.gather(*(attack(target) for attack in ATTACKS))
            else:
                for attack in ATTACKS:
                    await attack(target)
            serving = await serves(target)
            good = good and serving
            memory.append(resident(under.process.pid))
            # The upstream here keeps what it gets; what is of interest is the processor's memory.
            upstream.received.clear()
            print(
                f"round {number + 1}: {time.monotonic() - began:.1f} s, {'serving' if serving else 'NOT SERVING'},"
                f" resident {memory[-1] / 2**20:.1f} MiB",
                flush=True,
            )
        polite.cancel()
        await asyncio.gather(polite, return_exceptions=True)
        under.process.terminate()
        finished = await under.end()
    warm = max(memory[:_WARM_UP])
    flat = memory[-1] <= warm * (1 + _GROWTH_SHARE) + _GROWTH_BYTES
    strange = {answer for answer in target.polite if answer not in _SERVED}
    print(f"polite client: {', '.join(f'{count} x {answer}' for answer, count in sorted(target.polite.items()))}")
    print(
        f"resident after the warm-up {warm / 2**20:.1f} MiB, at the end {memory[-1] / 2**20:.1f} MiB;"
        f" exit code {finished.code}"
    )
    if "Traceback" in finished.stderr or finished.code:
        print(finished.stderr[-5000:])
    good = good and flat and not strange and finished.code == 0 and "Traceback" not in finished.stderr
    print("all held" if good else "NOT ALL HELD", flush=True)
    return good


def main() -> int:
    """Run as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10, help="rounds (default: %(default)s)")
    parser.add_argument("--scale", type=float, default=1.0, help="how many of everything (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="where chance begins (default: %(default)s)")
    return 0 if asyncio.run(run(parser.parse_args())) else 1


if __name__ == "__main__":
    sys.exit(main())
