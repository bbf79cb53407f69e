"""Keys on the receivers: who is served, who is not, on every transport and for every signal, before a body is read."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path

import grpc
import httpx
import pytest
from google.rpc.error_details_pb2 import RetryInfo

from neatlogs_processor.core.request import Signal
from neatlogs_processor.errors import ConfigError, PermissionDeniedError, RateLimitedError, UnauthenticatedError
from neatlogs_processor.receivers.security import Authenticator, TokenBucket, read_keys
from support.http_upstream import PROTOBUF
from support.processor import LIMIT, Running, running
from support.spans import request, root
from support.upstream import SERVICES, Upstream, export, refused

BODY = request(root())
TOKEN, OTHER, BROWSER_KEY = "token-of-checkout", "token-of-search", "key-of-the-shop"
SHOP = "https://shop.example"
SIGNALS = pytest.mark.parametrize("signal", ["traces", "metrics", "logs"])


@pytest.fixture
def tokens(tmp_path: Path) -> Path:
    return written(tmp_path / "tokens", f"# who sends what\n\ncheckout {TOKEN}\n  search\t{OTHER}  \n")


@pytest.fixture
def browser_keys(tmp_path: Path) -> Path:
    return written(tmp_path / "browser", f"shop {BROWSER_KEY} {SHOP},http://localhost:3000\n")


def written(path: Path, text: str) -> Path:
    path.touch(0o600)
    path.write_text(text, encoding="utf-8")
    return path


async def post(processor: Running, headers: Mapping[str, str], signal: str = "traces") -> httpx.Response:
    async with httpx.AsyncClient(trust_env=False, timeout=LIMIT) as client:
        return await client.post(
            f"http://{processor.http}/v1/{signal}", content=BODY, headers={"content-type": PROTOBUF, **headers}
        )


GOOD: list[dict[str, str]] = [
    {"authorization": f"Bearer {TOKEN}"},
    {"authorization": f"bearer   {OTHER}"},
    {"x-api-key": TOKEN},
    # The upstream's own key may travel beside ours.
    {"authorization": f"Bearer {TOKEN}", "x-api-key": "of-the-upstream"},
    {"authorization": "Bearer of-the-upstream", "x-api-key": OTHER},
]
BAD: list[dict[str, str]] = [
    {},
    {"authorization": "Bearer wrong-token"},
    {"authorization": f"Basic {TOKEN}"},
    {"authorization": TOKEN},
    {"authorization": "Bearer"},
    {"authorization": f"Bearer {TOKEN}x"},
    {"authorization": f"Bearer {TOKEN[:-1]}"},
    {"authorization": f"Bearer checkout {TOKEN}"},
    {"x-api-key": ""},
    {"x-api-key": "checkout"},
    {"x-token": TOKEN},
]


@SIGNALS
@pytest.mark.parametrize("headers", GOOD)
async def test_a_known_token_is_served(tokens: Path, signal: str, headers: dict[str, str]) -> None:
    """A token may come as a bearer token or as x-api-key, over gRPC and HTTP, for every signal."""
    async with (
        Upstream() as upstream,
        running(upstream_endpoint=upstream.endpoint, auth_tokens_file=str(tokens)) as processor,
    ):
        await export(processor.target, BODY, signal=signal, metadata=tuple(headers.items()))
        assert (await post(processor, headers, signal)).status_code == 200
    assert len(upstream.received) == 2


@SIGNALS
@pytest.mark.parametrize("headers", BAD)
async def test_everybody_else_is_refused(tokens: Path, signal: str, headers: dict[str, str]) -> None:
    """Without a known token: UNAUTHENTICATED and 401, counted, and nothing goes on."""
    async with (
        Upstream() as upstream,
        running(upstream_endpoint=upstream.endpoint, auth_tokens_file=str(tokens)) as processor,
    ):
        error = await refused(processor.target, BODY, signal=signal, metadata=tuple(headers.items()))
        answer = await post(processor, headers, signal)
        assert processor.service.telemetry.counters.requests.get(signal, "unauthenticated") == 2
    assert error.code() is grpc.StatusCode.UNAUTHENTICATED
    assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
    assert upstream.received == []


@SIGNALS
async def test_grpc_refuses_before_the_body(tokens: Path, signal: str) -> None:
    """A stranger is answered while its message has not even begun to arrive."""
    async with (
        running(console=True, auth_tokens_file=str(tokens)) as processor,
        grpc.aio.insecure_channel(processor.target) as channel,
    ):
        call = channel.stream_unary(f"/{SERVICES[signal]}/Export")(timeout=LIMIT)
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await call
    assert error.value.code() is grpc.StatusCode.UNAUTHENTICATED


@SIGNALS
async def test_http_refuses_before_the_body(tokens: Path, signal: str) -> None:
    """A stranger is answered after the headers, whatever length of body they announce."""
    async with running(console=True, auth_tokens_file=str(tokens)) as processor:
        host, _, port = processor.http.rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        lines = [f"POST /v1/{signal} HTTP/1.1", "host: x", f"content-type: {PROTOBUF}", "content-length: 1000000"]
        writer.write("\r\n".join([*lines, "", ""]).encode())
        line = await asyncio.wait_for(reader.readline(), LIMIT)
        writer.close()
    assert line.startswith(b"HTTP/1.1 401 ")


async def test_the_health_service_asks_for_no_token(tokens: Path) -> None:
    """Probes of an orchestrator cannot send one."""
    async with (
        running(console=True, auth_tokens_file=str(tokens)) as processor,
        grpc.aio.insecure_channel(processor.target, compression=grpc.Compression.Gzip) as channel,
    ):
        check = channel.unary_unary("/grpc.health.v1.Health/Check")
        assert await check(b"\x0a\x00" + b"\x0a\x00" * 100, timeout=LIMIT) == b"\x08\x01"


@pytest.mark.parametrize("header", ["authorization", "x-api-key"])
async def test_the_processor_s_token_goes_no_further(tokens: Path, header: str) -> None:
    """Even where its header is forwarded, a token that was meant for the processor is not."""
    other = "x-api-key" if header == "authorization" else "authorization"
    key = f"Bearer {TOKEN}" if header == "authorization" else TOKEN
    async with (
        Upstream() as upstream,
        running(
            upstream_endpoint=upstream.endpoint,
            auth_tokens_file=str(tokens),
            forward_headers="authorization,x-api-key",
        ) as processor,
    ):
        await export(processor.target, BODY, metadata=((header, key), (other, "of-the-upstream")))
        await post(processor, {header: key, other: "of-the-upstream"})
    for received in upstream.received:
        assert header not in received.headers
        assert received.headers[other] == "of-the-upstream"


async def test_the_upstream_s_key_may_be_held_by_the_processor(tokens: Path) -> None:
    """Applications then have only their own token, and the upstream only sees its own key."""
    headers = written(tokens.with_name("headers"), "x-api-key=of-the-upstream\n")
    async with (
        Upstream() as upstream,
        running(
            upstream_endpoint=upstream.endpoint, auth_tokens_file=str(tokens), upstream_headers_file=str(headers)
        ) as processor,
    ):
        await export(processor.target, BODY, metadata=(("x-api-key", TOKEN),))
    assert upstream.received[0].headers["x-api-key"] == "of-the-upstream"


async def test_a_browser_key_opens_traces_from_its_origins_only(browser_keys: Path) -> None:
    """Other signals, other origins, no origin and other keys are refused."""
    key = {"x-api-key": BROWSER_KEY}
    async with (
        Upstream() as upstream,
        running(upstream_endpoint=upstream.endpoint, browser_keys_file=str(browser_keys)) as processor,
    ):
        statuses = [
            (await post(processor, headers, signal)).status_code
            for headers, signal in (
                ({**key, "origin": SHOP}, "traces"),
                ({**key, "origin": "http://localhost:3000"}, "traces"),
                ({**key, "origin": SHOP}, "logs"),
                ({**key, "origin": SHOP}, "metrics"),
                ({**key, "origin": "https://evil.example"}, "traces"),
                ({**key, "origin": "null"}, "traces"),
                (key, "traces"),
                ({"origin": SHOP}, "traces"),
            )
        ]
        over_grpc = await refused(processor.target, BODY, metadata=(("x-api-key", BROWSER_KEY),))
        denied = processor.service.telemetry.counters.requests.get("traces", "permission_denied")
    assert statuses == [200, 200, 403, 403, 403, 403, 403, 401]
    assert over_grpc.code() is grpc.StatusCode.PERMISSION_DENIED
    assert denied == 4
    assert len(upstream.received) == 2


async def test_a_key_for_pages_that_may_not_send_gets_a_warning(
    browser_keys: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """An origin of a browser key that --cors-origins does not list is named in the log, because its pages fail."""
    async with running(console=True, browser_keys_file=str(browser_keys), cors_origins=SHOP):
        pass
    (warning,) = (record.getMessage() for record in caplog.records if "--cors-origins" in record.getMessage())
    assert "http://localhost:3000" in warning
    assert SHOP not in warning
    assert BROWSER_KEY not in caplog.text


async def test_a_browser_key_is_limited_in_its_rate(browser_keys: Path) -> None:
    """Past the rate: 429 with a delay, counted, while others are served."""
    headers = {"x-api-key": BROWSER_KEY, "origin": SHOP}
    flags = {"console": True, "browser_keys_file": str(browser_keys), "browser_key_rate": "0.001"}
    async with running(**flags) as processor:
        first, second = await post(processor, headers), await post(processor, headers)
        assert processor.service.telemetry.counters.requests.get("traces", "rate_limited") == 1
    assert (first.status_code, second.status_code) == (200, 429)
    assert 900 <= int(second.headers["retry-after"]) <= 1000


async def test_over_grpc_a_rate_is_retryable_with_a_delay(browser_keys: Path) -> None:
    """RESOURCE_EXHAUSTED comes with RetryInfo, without which it would mean never again."""
    metadata = (("x-api-key", BROWSER_KEY), ("origin", SHOP))
    flags = {"console": True, "browser_keys_file": str(browser_keys), "browser_key_rate": "0.001"}
    async with running(**flags) as processor:
        await export(processor.target, BODY, metadata=metadata)
        error = await refused(processor.target, BODY, metadata=metadata)
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    delay = RetryInfo.FromString(dict(error.trailing_metadata())["google.rpc.retryinfo-bin"]).retry_delay
    assert 900 <= delay.seconds <= 1000


def test_a_bucket_fills_with_time() -> None:
    """A burst of twice the rate passes, then as many as the rate; a clock that goes back gives nothing."""
    bucket = TokenBucket(8, now=100.0)
    assert [bucket.take(100.0) for _ in range(16)] == [0.0] * 16
    assert bucket.take(100.0) == 0.125
    assert bucket.take(100.0625) == 0.0625
    assert bucket.take(100.125) == 0.0
    assert bucket.take(50.0) > 0
    assert [bucket.take(1000.0) for _ in range(17)].count(0.0) == 16


def test_each_browser_key_has_a_rate_of_its_own(tmp_path: Path) -> None:
    """One page that sends too much does not silence another, and reading the file again forgives nothing."""
    now = 0.0
    path = written(tmp_path / "keys", f"shop {BROWSER_KEY} {SHOP}\nblog key-of-the-blog {SHOP}\n")
    check = Authenticator(browser_keys_file=path, browser_key_rate=0.5, clock=lambda: now)
    shop, blog = ({"x-api-key": key, "origin": SHOP} for key in (BROWSER_KEY, "key-of-the-blog"))
    assert check(Signal.TRACES, shop) == "x-api-key"
    with pytest.raises(RateLimitedError):
        check(Signal.TRACES, shop)
    check(Signal.TRACES, blog)
    now = 1.0
    written(path, f"shop {BROWSER_KEY} {SHOP}\n")
    with pytest.raises(RateLimitedError) as error:
        check(Signal.TRACES, shop)
    assert error.value.retry_after == pytest.approx(1.0)
    with pytest.raises(UnauthenticatedError):
        check(Signal.TRACES, blog)


def test_tokens_and_browser_keys_stand_side_by_side(tokens: Path, browser_keys: Path) -> None:
    """A token is not held to the origins and signals of browser keys."""
    check = Authenticator(tokens_file=tokens, browser_keys_file=browser_keys)
    assert check(Signal.LOGS, {"authorization": f"Bearer {TOKEN}", "origin": "https://evil.example"}) == "authorization"
    with pytest.raises(PermissionDeniedError):
        check(Signal.LOGS, {"authorization": f"Bearer {BROWSER_KEY}", "origin": SHOP})


def test_tokens_change_without_a_restart(tokens: Path) -> None:
    """A token that is added is known within a second, and one that is taken away is not."""
    now = 0.0
    check = Authenticator(tokens_file=tokens, clock=lambda: now)
    written(tokens, "new token-of-the-new\n")
    check(Signal.TRACES, {"x-api-key": TOKEN})
    now = 1.0
    assert check(Signal.TRACES, {"x-api-key": "token-of-the-new"}) == "x-api-key"
    with pytest.raises(UnauthenticatedError):
        check(Signal.TRACES, {"x-api-key": TOKEN})


def test_headers_of_any_kind_are_only_unknown(tokens: Path) -> None:
    """Bytes, line ends and lone surrogates are no keys, and no failures either."""
    check = Authenticator(tokens_file=tokens)
    for value in (b"bytes", "a\nb", "\udc80", "é", "x" * 100_000):
        for header in ("authorization", "x-api-key"):
            with pytest.raises(UnauthenticatedError):
                check(Signal.TRACES, {header: value})


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("hunter2hunter2", "name token"),
        ("a hunter2hunter2 more", "name token"),
        ("a hunter2", "8 to 4096"),
        ("a hunter2hunter2é", "8 to 4096"),
        ("a/b hunter2hunter2", "a name has"),
        ("first hunter2hunter2", "twice"),
        ("other first-token", "twice"),
    ],
)
def test_a_mistake_in_a_tokens_file_is_named_and_not_shown(tmp_path: Path, line: str, says: str) -> None:
    """The message has the flag, the file and the line's number, and nothing of the line."""
    path = written(tmp_path / "tokens", f"first first-token\n{line}\n")
    with pytest.raises(ConfigError) as error:
        read_keys(path, "--auth-tokens-file")
    message = str(error.value)
    assert message.startswith(f"--auth-tokens-file: {path}: line 2: ")
    assert says in message
    assert "hunter2" not in message


@pytest.mark.parametrize("origins", ["", "shop.example", "https://shop.example/", "*", "https://a.example,", "null"])
def test_a_browser_key_needs_origins(tmp_path: Path, origins: str) -> None:
    """An origin is scheme and host; there is no key for the whole world."""
    path = written(tmp_path / "keys", f"shop {BROWSER_KEY} {origins}\n")
    with pytest.raises(ConfigError, match=r"https://app\.example\.com"):
        read_keys(path, "--browser-keys-file", origins=True)


def test_a_file_that_cannot_be_read_or_holds_nothing_is_refused(tmp_path: Path) -> None:
    """Nobody could send: better to say so than to start."""
    empty, binary = written(tmp_path / "empty", "# nothing\n"), tmp_path / "binary"
    binary.write_bytes(b"\xff\xfe")
    for path, says in ((tmp_path / "nowhere", "No such file"), (empty, "holds no key"), (binary, "UTF-8")):
        with pytest.raises(ConfigError, match=says):
            read_keys(path, "--auth-tokens-file")


def test_a_file_that_everybody_can_read_gets_a_warning(tokens: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It works, and the log says how to keep it to its owner."""
    read_keys(tokens, "--auth-tokens-file")
    assert caplog.records == []
    tokens.chmod(0o644)
    read_keys(tokens, "--auth-tokens-file")
    assert "chmod o-r" in caplog.text
