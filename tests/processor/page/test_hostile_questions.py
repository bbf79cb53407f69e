"""Questions that cost too much, come from elsewhere or never end: they cost little, and others are answered."""

from __future__ import annotations

import asyncio
import base64
import threading
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from neatlogs_processor.page.access import PageToken, host_allowed
from neatlogs_processor.page.app import AT_ONCE, MAX_WAITING, PageOptions, page
from neatlogs_processor.query.results import Page, TraceRow
from neatlogs_processor.query.view import View
from neatlogs_processor.store.reader import SqliteReader
from support.processor import until
from support.served_page import root_span, served_page, write_spans
from support.stored import NOW

TOKEN = "a-token-that-is-hard-to-guess"
WHOSE = {"neatlogs.end_user.id": "ali", "neatlogs.session.id": "s"}


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A client of a page over three traces."""
    path = tmp_path_factory.mktemp("page") / "traces.db"
    write_spans(path, *(root_span(number, WHOSE) for number in (1, 2, 3)))
    with served_page(path) as running:
        yield running


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
@pytest.mark.parametrize("path", ["/traces?filter=end_user+is+ali", "/api/traces", "/complete?text=end_user", "/login"])
@pytest.mark.parametrize(("mode", "dest"), [("no-cors", "image"), ("cors", "empty"), ("navigate", "iframe")])
def test_scripts_and_frames_of_other_sites_ask_nothing(
    client: httpx.Client, site: str, path: str, mode: str, dest: str
) -> None:
    """What another site asks for in a visitor's browser is refused before the store is asked: it could time answers."""
    headers = {"sec-fetch-site": site, "sec-fetch-mode": mode, "sec-fetch-dest": dest}
    assert client.get(path, headers=headers).status_code == 403


@pytest.mark.parametrize("site", ["cross-site", "same-site", "same-origin", "none"])
def test_links_from_other_sites_lead_here(client: httpx.Client, site: str) -> None:
    """Who follows a link in a chat or an issue sees the page."""
    headers = {"sec-fetch-site": site, "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}
    assert client.get("/traces", headers=headers).status_code == 200
    headers = {"sec-fetch-site": "same-origin", "sec-fetch-mode": "cors", "sec-fetch-dest": "empty"}
    assert client.get("/live?than=", headers=headers).status_code == 200


@pytest.mark.parametrize(
    "host", ["[::1]x[", "[::1", "127.0.0.1:x", "127.0.0.1@evil.example", "[::1]evil.example", "a b"]
)
def test_what_is_no_host_is_refused(client: httpx.Client, host: str) -> None:
    """A header that is neither a name nor an address passes nowhere, not even where all names are allowed."""
    assert not host_allowed(host, ("*",))
    assert client.get("/traces", headers={"host": host}).status_code == 421


def test_a_page_stays_small_however_long_its_filters_are(client: httpx.Client) -> None:
    """With filters of tens of thousands of characters a page lists fewer rows, and the refusal says how many."""
    ids = ", ".join(f'"{number:0250d}"' for number in range(190))
    query = f"filter={quote(f'end_user is none of {ids}')}"
    assert len(query) > 48_000
    refused = client.get(f"/traces?{query}&limit=500")
    assert refused.status_code == 400
    assert "a page lists at most" in refused.text
    assert client.get(f"/traces?{query}").status_code == 200
    assert client.get(f"/api/traces?{query}&limit=500").status_code == 200


def test_only_files_that_are_there_are_kept_in_caches(client: httpx.Client) -> None:
    """A file of the page may be kept for ever, an error in its place may not."""
    assert "immutable" in client.get("/static/page.css").headers["cache-control"]
    for path in ("/static/missing.css", "/static/..%2fapp.py", "/static/%2e%2e/app.py"):
        answer = client.get(path)
        assert (answer.status_code, answer.headers["cache-control"]) == (404, "no-store")
    assert client.get("/static/page.css", headers={"host": "evil.example"}).headers["cache-control"] == "no-store"


def test_a_span_with_too_much_to_read_is_cut_on_the_page_and_whole_in_the_api(tmp_path: Path) -> None:
    """Long texts, and thousands of events, links and attributes show their beginnings and how much there is."""
    many = {f"key {number:04d}": "value" for number in range(3000)}
    span = root_span(1, {**WHOSE, **many, "input.value": "x" * 1_000_000}, name="n" * 100_000)
    for number in range(3000):
        span.events.add(name=f"event {number}", time_unix_nano=NOW)
        span.links.add(trace_id=b"\x01" * 16, span_id=b"\x02" * 8)
    write_spans(tmp_path / "traces.db", span)
    with served_page(tmp_path / "traces.db") as client:
        shown = client.get(f"/traces/{1:032x}").text
        assert len(shown) < 1_000_000
        for words in (
            "1,000,000 characters",
            "And 2,503 attributes more",
            "And 2,800 events more",
            "And 2,800 links more",
        ):
            assert words in shown
        (whole,) = client.get(f"/api/traces/{1:032x}").json()["spans"]
        assert (len(whole["attributes"]), len(whole["events"]), len(whole["links"])) == (3003, 3000, 3000)


def test_ids_that_fit_no_address_are_shown_cut_and_without_a_link(tmp_path: Path) -> None:
    """An id of a megabyte makes no page of megabytes; what it is in full says the API."""
    user, session = "u" * 1_000_000, "s" * 1_000_000
    write_spans(tmp_path / "traces.db", root_span(1, {"neatlogs.end_user.id": user, "neatlogs.session.id": session}))
    with served_page(tmp_path / "traces.db") as client:
        for path in ("/traces", "/sessions", "/users", f"/traces/{1:032x}", "/complete?text=end_user+is+"):
            answer = client.get(path)
            assert answer.status_code == 200
            assert len(answer.text) < 1_100_000
        assert len(client.get("/users").text) < 60_000
        assert client.get("/api/users").json()["rows"][0]["end_user"] == user


class Held(SqliteReader):
    """A store that takes its time: the list of traces waits until it is let go."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.asked = 0
        self.go = threading.Event()
        self._lock = threading.Lock()

    def traces(self, view: View, *, now: int) -> Page[TraceRow]:
        """See `TraceReader`."""
        with self._lock:
            self.asked += 1
        assert self.go.wait(60)
        return super().traces(view, now=now)


def request_of(path: str, query: str = "", method: str = "GET", **headers: str) -> dict[str, Any]:
    """Return the scope of a request to the page."""
    named = [
        (name.replace("_", "-").encode(), value.encode()) for name, value in {"host": "localhost", **headers}.items()
    ]
    return {
        "type": "http",
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "root_path": "",
        "headers": named,
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 80),
    }


async def status_of(app: Any, scope: dict[str, Any], receive: Callable[[], Awaitable[Any]] | None = None) -> int | None:
    """Return the status that a request is answered with; `None` where it is not."""
    said: list[int] = []
    body = iter([{"type": "http.request", "body": b"", "more_body": False}])

    async def arrived() -> Any:
        for message in body:
            return message
        return await asyncio.get_running_loop().create_future()

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            said.append(message["status"])

    await app(scope, receive or arrived, send)
    return said[0] if said else None


async def test_few_questions_are_worked_on_at_once_and_too_many_are_told_to_come_back(tmp_path: Path) -> None:
    """Who waits is answered later, who finds a long queue gets 503, and who has gone is not answered at all."""
    path = tmp_path / "traces.db"
    write_spans(path, root_span(1, WHOSE))
    reader = Held(path)
    app = page(reader, PageOptions(), clock=lambda: NOW)
    gone = iter([{"type": "http.request", "body": b"", "more_body": False}])

    async def left() -> Any:
        return next(gone, {"type": "http.disconnect"})

    try:
        waiting = [asyncio.ensure_future(status_of(app, request_of("/traces"))) for _ in range(AT_ONCE)]
        await until(lambda: reader.asked == AT_ONCE)
        away = asyncio.ensure_future(status_of(app, request_of("/traces"), left))
        waiting += [asyncio.ensure_future(status_of(app, request_of("/traces"))) for _ in range(MAX_WAITING - 1)]
        await asyncio.sleep(0)
        assert await status_of(app, request_of("/users")) == 503
        assert await status_of(app, request_of("/static/page.css")) == 200
        assert reader.asked == AT_ONCE
        reader.go.set()
        assert set(await asyncio.gather(*waiting)) == {200}
        assert await away is None
        assert await status_of(app, request_of("/users")) == 200
        # The first of a list with rows asks once.
        assert reader.asked == len(waiting)
    finally:
        reader.go.set()
        reader.close()


async def test_a_form_that_never_ends_is_given_up(tmp_path: Path) -> None:
    """Who sends half a form and waits is answered 408, and holds the connection no longer."""
    path = tmp_path / "traces.db"
    write_spans(path, root_span(1, WHOSE))
    reader = SqliteReader(path)
    app = page(reader, PageOptions(token=PageToken(lambda: TOKEN)), clock=lambda: NOW, patience=0.05)
    half = iter([{"type": "http.request", "body": b"token=", "more_body": True}])

    async def arriving() -> Any:
        for message in half:
            return message
        return await asyncio.get_running_loop().create_future()

    assert await status_of(app, request_of("/login", method="POST"), arriving) == 408
    reader.close()


@pytest.mark.parametrize("sort", ["", "&sort=end_user", "&sort=-traces"])
def test_ids_of_any_length_may_end_a_page_of_a_list(tmp_path: Path, sort: str) -> None:
    """A list with ids that are too long for an address is walked to its end, as pages and as a table."""
    path = tmp_path / "traces.db"
    ids = [f"{number}" + "\x01é🙂" * 2000 for number in range(5)]
    said = ({"neatlogs.end_user.id": one, "neatlogs.session.id": one} for one in ids)
    write_spans(path, *(root_span(number, one) for number, one in enumerate(said, 1)))
    with served_page(path) as client:
        for tab, name in (("users", "end_user"), ("sessions", "session")):
            ordered = sort if tab == "users" or "end_user" not in sort else ""
            address, seen = f"/api/{tab}?limit=2{ordered}", []
            while address:
                answer = client.get(address).raise_for_status().json()
                seen += [row[name] for row in answer["rows"]]
                address = answer["next"]
            assert sorted(seen) == ids
            assert client.get(f"/{tab}?limit=2{ordered}").status_code == 200


@pytest.mark.parametrize("place", ["[1,2]", "[true]", "[9]", '["a"]', "[[1]]", "{}", "[1e3]"])
@pytest.mark.parametrize("tab", ["users", "sessions", "traces"])
def test_a_cursor_that_leads_nowhere_is_refused(client: httpx.Client, tab: str, place: str) -> None:
    """What somebody else has written into a cursor is a 400 with words."""
    order = {"users": "-last_seen", "sessions": "-start", "traces": "-start"}[tab]
    cursor = base64.urlsafe_b64encode(f'["{tab}","{order}",1,{place}]'.encode()).decode().rstrip("=")
    assert client.get(f"/api/{tab}?cursor={cursor}").status_code == 400
    assert client.get(f"/{tab}?cursor={cursor}").status_code == 400
