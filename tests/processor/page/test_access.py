"""Who may see the page, and what an answer of it allows."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from neatlogs_processor.errors import ConfigError
from neatlogs_processor.page.access import SESSION_SECONDS, Attempts, PageToken, host_allowed, read_token
from neatlogs_processor.page.app import PageOptions
from neatlogs_processor.settings import check_together, load
from support.page import MadeTrace, PageUnderTest, page_under_test
from support.processor_process import processor_process
from support.served_page import root_span, served_page, write_spans

TOKEN = "a-token-that-is-hard-to-guess"


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PageUnderTest]:
    """A page with a token, behind a path and under a host name of its own."""
    path = tmp_path_factory.mktemp("token") / "token"
    path.write_text(f"{TOKEN}\n")
    flags = ("--page-token-file", str(path), "--root-path", "/traces-ui", "--allowed-hosts", "traces.example.com")
    with page_under_test(*flags) as running:
        running.send(MadeTrace(1, 60).root("hello", "alice"))
        yield running


@pytest.fixture
def client(locked: PageUnderTest) -> Iterator[httpx.Client]:
    """A client without cookies."""
    with httpx.Client(base_url=locked.url, timeout=30) as running:
        yield running


def test_the_page_asks_for_its_token_and_then_shows_what_was_asked_for(client: httpx.Client) -> None:
    """Without a session one comes to the form; the token leads to the page that was asked for; signing out ends it."""
    asked = client.get("/traces?filter=end_user+is+alice")
    assert asked.status_code == 303
    assert asked.headers["location"] == "/traces-ui/login?next=%2Ftraces%3Ffilter%3Dend_user%2Bis%2Balice"
    target = "/traces?filter=end_user+is+alice"
    answer = client.post("/login", data={"token": TOKEN, "next": target})
    assert answer.headers["location"] == f"/traces-ui{target}"
    cookie = answer.headers["set-cookie"]
    assert all(part in cookie for part in ("HttpOnly", "SameSite=lax", "Path=/traces-ui"))
    assert TOKEN not in cookie
    assert "alice" in client.get(target).text
    client.post("/logout")
    assert client.get("/traces").status_code == 303


@pytest.mark.parametrize(("proto", "secure"), [(None, False), ("http", False), ("https", True), ("https, http", True)])
def test_the_cookie_is_secure_behind_https(client: httpx.Client, proto: str | None, secure: bool) -> None:
    """Where the proxy that the browser speaks to says that it speaks HTTPS, the cookie never travels without."""
    headers = {} if proto is None else {"x-forwarded-proto": proto}
    answer = client.post("/login", data={"token": TOKEN}, headers=headers)
    assert ("Secure" in answer.headers["set-cookie"]) is secure


def test_a_wrong_token_is_refused(client: httpx.Client) -> None:
    """A wrong token gets the form again and no cookie; a forged cookie opens nothing."""
    answer = client.post("/login", data={"token": "wrong", "next": "/traces"})
    assert answer.status_code == 401
    assert "set-cookie" not in answer.headers
    client.cookies.set("neatlogs_page", "9999999999.c2lnbmF0dXJl")
    assert client.get("/traces").status_code == 303


def test_programs_send_the_token_as_a_bearer(client: httpx.Client) -> None:
    """The API answers 401 without the token and 200 with it; pieces of the page answer 401 instead of a form."""
    refused = client.get("/api/traces")
    assert refused.status_code == 401
    assert refused.headers["www-authenticate"] == "Bearer"
    assert refused.json() == {"error": {"message": "the page's token is needed: Authorization: Bearer TOKEN"}}
    assert client.get("/api/traces", headers={"authorization": f"Bearer {TOKEN}"}).status_code == 200
    assert client.get("/api/traces", headers={"authorization": "Bearer wrong"}).status_code == 401
    assert client.get("/live", headers={"hx-request": "true"}).status_code == 401


@pytest.mark.parametrize("target", ["//evil.example", "https://evil.example", "/\\evil.example", "traces", "/a\nb"])
def test_nobody_is_sent_elsewhere_after_signing_in(client: httpx.Client, target: str) -> None:
    """A target that is no path of the page is replaced by the list."""
    answer = client.post("/login", data={"token": TOKEN, "next": target})
    assert answer.headers["location"] == "/traces-ui/traces"


@pytest.mark.parametrize("headers", [{"sec-fetch-site": "cross-site"}, {"origin": "https://evil.example"}])
def test_forms_of_other_sites_are_refused(client: httpx.Client, headers: dict[str, str]) -> None:
    """A browser that says that another site sent the form is answered 403, even with the right token or session."""
    assert client.post("/login", data={"token": TOKEN}, headers=headers).status_code == 403
    assert client.post("/logout", headers=headers).status_code == 403
    client.post("/login", data={"token": TOKEN})
    assert client.post("/logout", headers=headers).status_code == 403
    assert client.get("/traces").status_code == 200


def test_a_proxy_may_remove_the_path_or_not(locked: PageUnderTest) -> None:
    """Requests with the root path and without it get the same page, whose links all have it."""
    origin = httpx.URL(locked.url).copy_with(path="/")
    with httpx.Client(base_url=origin, headers={"authorization": f"Bearer {TOKEN}"}) as client:
        kept, removed = client.get("/traces-ui/users"), client.get("/users")
        assert kept.status_code == removed.status_code == 200
        for page in (kept.text, removed.text):
            links = re.findall(r'(?:href|src|action|hx-get)="(/[^"]*)"', page)
            assert links
            assert [link for link in links if not link.startswith("/traces-ui/")] == []


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("evil.example", 421),
        ("traces.example.com", 303),
        ("localhost:4319", 303),
        ("[::1]:4319", 303),
        ("10.1.2.3", 303),
    ],
)
def test_the_host_must_be_known(client: httpx.Client, host: str, status: int) -> None:
    """A name that was not allowed is refused (DNS rebinding); addresses and localhost always pass."""
    assert client.get("/traces", headers={"host": host}).status_code == status


def test_probes_and_metrics_need_neither(locked: PageUnderTest) -> None:
    """`/healthz`, `/readyz` and `/metrics` answer without a token and under any host name."""
    origin = httpx.URL(locked.url).copy_with(path="/")
    for path in ("healthz", "readyz", "metrics"):
        assert httpx.get(f"{origin}{path}", headers={"host": "pod-7.cluster"}).status_code == 200


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
def test_the_page_only_answers_get(client: httpx.Client, method: str) -> None:
    """Nothing but signing in and out is done by anything else than GET."""
    for path in ("/traces", "/users", "/api/traces", "/filter"):
        assert client.request(method, path).status_code == 405


def test_nothing_changes_by_get(client: httpx.Client) -> None:
    """A link that somebody follows signs nobody in or out."""
    assert client.get("/logout", headers={"authorization": f"Bearer {TOKEN}"}).status_code == 405
    answer = client.get("/login", params={"token": TOKEN})
    assert answer.status_code == 200
    assert "set-cookie" not in answer.headers


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        ("/api/traces", {"host": "evil.example"}, 421),
        ("/api/traces", {"authorization": "Bearer wrong"}, 401),
        ("/api/nowhere", {"authorization": f"Bearer {TOKEN}"}, 404),
        ("/api/traces?filter=x", {"authorization": f"Bearer {TOKEN}"}, 400),
    ],
)
def test_programs_get_errors_in_one_form(client: httpx.Client, path: str, headers: dict[str, str], status: int) -> None:
    """Whoever refuses a request to the API, the guard or the API itself, says so as `{"error": {"message": ...}}`."""
    answer = client.get(path, headers=headers)
    assert answer.status_code == status
    assert answer.json()["error"]["message"]


def test_answers_allow_nothing_from_elsewhere(client: httpx.Client) -> None:
    """Every page has a policy without inline scripts or styles, is not kept in caches, and stands in no frame."""
    client.headers["authorization"] = f"Bearer {TOKEN}"
    for path in ("/traces", "/users", "/sessions", "/coverage", "/nowhere", "/traces?filter=nonsense", "/login"):
        answer = client.get(path)
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert answer.headers["x-frame-options"] == "DENY"
        assert answer.headers["cache-control"] == "no-store"
        assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\sstyle=|\son\w+=", answer.text)


def test_without_a_store_the_page_says_why_it_is_not_there() -> None:
    """A processor that keeps no traces answers 404 where the page would be, and names the flag."""
    flags = ("--console", "--store", "none", "--admin-listen", "127.0.0.1:0")
    with processor_process(*flags) as processor:
        found = re.search(r"admin on (127\.0\.0\.1:\d+)", processor.log)
        assert found
        for path in ("/", "/traces", "/users"):
            answer = httpx.get(f"http://{found[1]}{path}", timeout=30)
            assert answer.status_code == 404
            assert "--store PATH" in answer.text


def test_wrong_tokens_are_bounded() -> None:
    """After ten wrong tokens a client waits, others do not; after a hundred everybody waits; waiting helps."""
    now = [1000.0]
    attempts = Attempts(clock=lambda: now[0])
    for _ in range(10):
        assert attempts.wait("a") == 0
        attempts.failed("a")
    assert 0 < attempts.wait("a") <= 6
    assert attempts.wait("b") == 0
    now[0] += 6
    assert attempts.wait("a") == 0
    for number in range(100):
        attempts.failed(f"c{number}")
    assert attempts.wait("never seen") > 0


def test_a_session_ends() -> None:
    """A cookie is good for its time; a new token and a changed expiry end it."""
    token, now = ["first-token-first-token"], [1_000_000.0]
    page = PageToken(lambda: token[0], clock=lambda: now[0])
    cookie = page.cookie()
    assert page.accepts(cookie)
    expires, _, signature = cookie.partition(".")
    assert not page.accepts(f"{int(expires) + 1}.{signature}")
    assert not any(page.accepts(other) for other in ("", ".", "x.y", cookie + "x", "٣.é", "9" * 5000))
    token[0] = "second-token-second"
    assert not page.accepts(cookie)
    token[0] = "first-token-first-token"
    now[0] += SESSION_SECONDS
    assert not page.accepts(cookie)


@pytest.mark.parametrize(
    ("host", "allowed", "expected"),
    [
        ("127.0.0.1:4319", (), True),
        ("[::1]", (), True),
        ("LOCALHOST.", (), True),
        ("page.localhost:80", (), True),
        ("localhost.evil.example", (), False),
        ("127.0.0.1.evil.example", (), False),
        ("", (), False),
        ("a.example.com", ("*.example.com",), True),
        ("example.com", ("*.example.com",), False),
        ("evilexample.com", ("*.example.com",), False),
        ("anything", ("*",), True),
    ],
)
def test_which_hosts_pass(host: str, allowed: tuple[str, ...], expected: bool) -> None:
    """Addresses and localhost pass, names pass that are allowed, a star stands for whole labels."""
    assert host_allowed(host, allowed) is expected


@pytest.mark.parametrize(
    ("text", "says"), [("short", "at least 16"), ("", "one line"), (f"{TOKEN}\n{TOKEN}", "one line")]
)
def test_a_token_file_holds_one_token(tmp_path: Path, text: str, says: str) -> None:
    """A token that is short, missing or not alone is refused with the way to make one."""
    path = tmp_path / "token"
    path.write_text(text)
    with pytest.raises(ConfigError, match=says):
        read_token(path)


def test_other_machines_need_a_token_or_a_word(tmp_path: Path) -> None:
    """An admin port that other machines reach is refused, unless the page has a token or it is said to be fine."""
    listen = {"admin_listen": "0.0.0.0:4319"}
    with pytest.raises(ConfigError, match="--page-token-file"):
        check_together(load(listen, {}).settings)
    check_together(load({**listen, "page_token_file": str(tmp_path / "token")}, {}).settings)
    check_together(load({**listen, "allow_insecure": "admin"}, {}).settings)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("root_path", "traces"),
        ("root_path", "/a b"),
        ("root_path", "/x//y"),
        ("allowed_hosts", "a:80"),
        ("allowed_hosts", "http://a"),
    ],
)
def test_paths_and_hosts_are_checked(name: str, value: str) -> None:
    """A root path is a path of plain characters, an allowed host a name without a scheme or port."""
    with pytest.raises(ConfigError, match=name.replace("_", "-")):
        load({name: value}, {})


def test_a_root_path_loses_its_last_slash() -> None:
    """`/traces-ui/` and `/traces-ui` are the same, and `/` is none."""
    assert load({"root_path": "/traces-ui/"}, {}).settings.root_path == "/traces-ui"
    assert load({"root_path": "/"}, {}).settings.root_path == ""


@pytest.mark.parametrize("path", ["/traces", f"/traces/{1:032x}", "/users", "/api/traces", "/static/page.css"])
@pytest.mark.parametrize("removed", [True, False])
def test_a_root_path_may_be_called_as_a_page_is(tmp_path: Path, path: str, removed: bool) -> None:
    """Under `/traces` every page is reached whether the proxy removes the path or not, and none leads in circles."""
    write_spans(tmp_path / "traces.db", root_span(1, {"neatlogs.end_user.id": "alice"}))
    with served_page(tmp_path / "traces.db", PageOptions(root_path="/traces")) as client:
        assert client.get(path if removed else f"/traces{path}").status_code == 200
        assert client.get("/" if removed else "/traces", follow_redirects=not removed).status_code in (200, 307)


def test_the_guesses_of_others_hold_up_nobody_who_knew_the_token() -> None:
    """When wrong tokens from everywhere make strangers wait, a client that has offered the right one goes on."""
    attempts = Attempts(clock=lambda: 1000.0)
    attempts.succeeded("known")
    for number in range(101):
        attempts.failed(f"c{number}")
    assert attempts.wait("never seen") > 0
    assert attempts.wait("known") == 0
    for _ in range(10):
        attempts.failed("known")
    assert attempts.wait("known") > 0


@pytest.mark.parametrize("form", [True, False], ids=["form", "bearer"])
def test_who_guesses_has_to_wait(tmp_path: Path, form: bool) -> None:
    """After ten wrong tokens the answer is 429 with the time to wait, for the right token too."""
    write_spans(tmp_path / "traces.db", root_span(1))
    with served_page(tmp_path / "traces.db", PageOptions(token=PageToken(lambda: TOKEN))) as client:

        def offer(token: str) -> httpx.Response:
            if form:
                return client.post("/login", data={"token": token})
            return client.get("/api/traces", headers={"authorization": f"Bearer {token}"})

        statuses = [offer(f"wrong {number}").status_code for number in range(10)]
        assert statuses == [401] * 10
        late = offer(TOKEN)
        assert late.status_code == 429
        assert 1 <= int(late.headers["retry-after"]) <= 7
        assert "set-cookie" not in late.headers
