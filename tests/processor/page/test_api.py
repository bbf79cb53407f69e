"""The JSON API: the page's lists for programs."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.checks import CHECKS
from starlette.applications import Starlette

from neatlogs_processor.page.api import api_routes
from neatlogs_processor.page.api_document import document
from neatlogs_processor.query.text import parse
from neatlogs_processor.query.units import timestamp
from neatlogs_processor.query.view import TABLE_LIMIT, Sort, Tab, View
from neatlogs_processor.store.reader import SqliteReader
from support.stored import MINUTE, NOW, SECOND, Stored, store, write
from support.web_servers import asgi_server

AWKWARD = 'a|b: c,"d" \\ %25 # & + 🙂 שלום'
TRACES = [
    Stored(1, "ali", {"plan": "pro", "n": 1}, session="s", tokens=5, tags=("x", "y"), services=("shop", "db")),
    Stored(2, AWKWARD, {"plan": "free"}, session="s", status="error", ago=2 * MINUTE),
    Stored(3, "=1+1", session="+SUM(A1)", workflow="@cmd", ago=3 * MINUTE),
    Stored(4, None, root_received=False, ago=4 * MINUTE),
]


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A client of the API over a store with four traces."""
    with store(tmp_path_factory.mktemp("store") / "traces.db", TRACES) as reader, serving(reader) as client:
        yield client


@contextmanager
def serving(reader: SqliteReader, root_path: str = "") -> Iterator[httpx.Client]:
    """Serve the API over this reader for the length of a block; the time of the server is that of the tests."""
    app = Starlette(routes=api_routes(reader, root_path=root_path, clock=lambda: NOW))
    with asgi_server(app) as url, httpx.Client(base_url=url, timeout=30) as client:
        yield client


def test_traces_are_listed_by_the_page_s_own_query_string(api: httpx.Client) -> None:
    """What the page filters by in its URL, the API filters by in its own."""
    view = View(filters=parse("end_user contains ALI and metadata:plan is pro"))
    (row,) = api.get(f"/api{view.url}").raise_for_status().json()["rows"]
    assert row == {
        "trace_id": TRACES[0].trace_id,
        "start": timestamp(NOW - MINUTE),
        "end": timestamp(NOW - MINUTE + SECOND),
        "duration_ns": SECOND,
        "spans": 2,
        "errors": 0,
        "tokens_input": 0,
        "tokens_output": 0,
        "tokens": 5,
        "root_received": True,
        "roots": 1,
        "status": "unset",
        "service": "shop",
        "name": "chat",
        "workflow": "chat",
        "session": "s",
        "end_user": "ali",
        "source": "trace",
        "metadata": {"plan": "pro", "n": 1},
        "services": ["db", "shop"],
        "tags": ["x", "y"],
        "overrides": 0,
    }


def test_an_awkward_id_survives_the_url(api: httpx.Client) -> None:
    """An id with everything that URLs use for themselves finds its trace."""
    one = parse("end_user is set")[0]
    view = View(filters=(type(one)(one.field, parse("end_user is x")[0].operator, (AWKWARD,)),))
    rows = api.get(f"/api{view.url}").raise_for_status().json()["rows"]
    assert [row["end_user"] for row in rows] == [AWKWARD]


def test_sessions_users_and_coverage_are_listed(api: httpx.Client) -> None:
    """The same filters, on the other tabs."""
    (session,) = api.get("/api/sessions", params={"filter": "end_user is ali"}).json()["rows"]
    assert (session["session"], session["end_users"], session["mixed"]) == ("s", sorted(["ali", AWKWARD]), True)
    (user,) = api.get("/api/users", params={"filter": ["end_user is ali", "workflow is chat"]}).json()["rows"]
    assert (user["end_user"], user["traces"], user["last_seen"]) == ("ali", 1, timestamp(NOW - MINUTE))
    coverage = api.get("/api/coverage").json()
    assert coverage["total"]["share"] == 1
    assert coverage["services"][0]["root_not_received"] == 1


def test_a_trace_is_given_whole(api: httpx.Client) -> None:
    """With its spans; the query string that the page shows it under may stay."""
    found = api.get(f"/api/traces/{TRACES[0].trace_id}?filter=end_user+is+ali").raise_for_status().json()
    assert found["trace"]["end_user"] == "ali"
    assert [span["service"] for span in found["spans"]] == ["shop", "db"]
    missing = api.get("/api/traces/" + "ab" * 16)
    assert (missing.status_code, missing.json()) == (404, {"error": {"message": "there is no such trace"}})


def test_pages_lead_on_to_the_next(api: httpx.Client) -> None:
    """`next` is an address: following it to the end gives every row once."""
    address, seen = "/api/traces?limit=3&sort=start", []
    while address:
        page = api.get(address).raise_for_status().json()
        seen += [row["trace_id"] for row in page["rows"]]
        address = page["next"]
    assert seen == [trace.trace_id for trace in reversed(TRACES)]


def test_addresses_hold_behind_a_reverse_proxy(tmp_path: Path) -> None:
    """`next` and the document begin with the path that the page is served under."""
    with store(tmp_path / "traces.db", TRACES) as reader, serving(reader, "/traces-page") as client:
        assert client.get("/api/traces?limit=1").json()["next"].startswith("/traces-page/api/traces?")
        assert client.get("/api/openapi.json").json()["servers"] == [{"url": "/traces-page"}]


@pytest.mark.parametrize(
    ("query", "error"),
    [
        ("filter=-tag&filter=end_user+is+a+and+wrkflow+is+b", ("filter", 1, 18, "workflow")),
        ("sort=name", ("sort", 0, 0, "-start")),
        ("last=soon", ("last", 0, 0, "24h")),
        ("nonsense=1", ("nonsense", 0, 0, "filter")),
        ("cursor=abc", ("cursor", 0, 0, None)),
        ("filter=%ff", ("", 0, 0, None)),
    ],
)
def test_errors_are_json_and_name_the_character(
    api: httpx.Client, query: str, error: tuple[str, int, int, str | None]
) -> None:
    """Which parameter, which of its kind, which character, and what would fit."""
    for path in ("/api/traces", "/api/traces.csv"):
        response = api.get(f"{path}?{query}")
        assert response.status_code == 400
        said = response.json()["error"]
        assert (said["parameter"], said["index"], said["position"]) == error[:3]
        assert error[3] is None or error[3] in said["expected"]
        assert said["message"]


def test_a_store_that_cannot_be_read_is_a_503(tmp_path: Path) -> None:
    """The answer says what is wrong, as JSON."""
    path = tmp_path / "none.db"
    reader = SqliteReader(path)
    with serving(reader) as client:
        response = client.get("/api/traces")
        assert (response.status_code, response.headers["retry-after"]) == (503, "1")
        assert "no store" in response.json()["error"]["message"]
        write(path, TRACES)
        assert len(client.get("/api/traces").json()["rows"]) == 4
    reader.close()


def test_csv_holds_what_is_listed(api: httpx.Client) -> None:
    """All rows in the order of the view, one line each, with times and sets written out."""
    response = api.get("/api/traces.csv?sort=start&limit=1").raise_for_status()
    assert response.headers["content-type"].startswith("text/csv")
    assert response.headers["content-disposition"] == 'attachment; filename="traces.csv"'
    rows = list(csv.DictReader(io.StringIO(response.text)))
    assert [row["trace_id"] for row in rows] == [trace.trace_id for trace in reversed(TRACES)]
    ali = rows[-1]
    assert (ali["end_user"], ali["tags"], ali["services"], ali["metadata"]) == (
        *("ali", "x, y", "db, shop", '{"plan": "pro", "n": 1}'),
    )
    assert (ali["start"], ali["duration_ns"], ali["root_received"]) == (timestamp(NOW - MINUTE), "1000000000", "true")
    assert rows[-2]["end_user"] == AWKWARD
    assert rows[0]["end_user"] == ""


@pytest.mark.parametrize("name", ["sessions", "users"])
def test_the_other_lists_are_tables_too(api: httpx.Client, name: str) -> None:
    """Sessions and end users have their CSV."""
    rows = list(csv.DictReader(io.StringIO(api.get(f"/api/{name}.csv").raise_for_status().text)))
    assert len(rows) == len(api.get(f"/api/{name}").json()["rows"]) > 1


def test_no_cell_is_a_formula(api: httpx.Client) -> None:
    """Ids and names that a spreadsheet would calculate get an apostrophe in front."""
    rows = list(csv.DictReader(io.StringIO(api.get("/api/traces.csv").text)))
    (row,) = (row for row in rows if row["trace_id"] == TRACES[2].trace_id)
    assert (row["end_user"], row["session"], row["workflow"]) == ("'=1+1", "'+SUM(A1)", "'@cmd")


def test_long_tables_come_page_by_page(tmp_path: Path) -> None:
    """A table is longer than any page of a list."""
    long = [Stored(number, f"user {number}", session=f"s {number}", ago=number) for number in range(TABLE_LIMIT + 3)]
    with store(tmp_path / "traces.db", long) as reader, serving(reader) as client:
        rows = list(csv.DictReader(io.StringIO(client.get("/api/traces.csv?limit=7").text)))
        assert len({row["trace_id"] for row in rows}) == len(rows) == len(long)
        for tab, name in (("users", "end_user"), ("sessions", "session")):
            rows = list(csv.DictReader(io.StringIO(client.get(f"/api/{tab}.csv").text)))
            assert len({row[name] for row in rows}) == len(rows) == len(long)
        view = View(sort=Sort("start"), limit=500)
        rest = view.from_cursor(reader.traces(view, now=NOW).next_cursor)
        assert client.get(f"/api/traces.csv?{rest.query}").text.count("\r\n") == len(long) - 500 + 1


def test_nothing_changes_by_asking(api: httpx.Client) -> None:
    """The API knows GET and HEAD, and nothing else."""
    for method in ("POST", "PUT", "PATCH", "DELETE"):
        assert api.request(method, "/api/traces").status_code == 405
    assert api.head("/api/traces").status_code == 200


def test_every_parameter_of_the_document_is_understood(api: httpx.Client) -> None:
    """What the document says can be asked is what a view can say, and every order of it works."""
    described = api.get("/api/openapi.json").json()["paths"]
    for tab in (Tab.TRACES, Tab.SESSIONS, Tab.USERS):
        parameters = {one["name"]: one["schema"] for one in described[f"/api/{tab.value}"]["get"]["parameters"]}
        assert set(parameters) == {"filter", "last", "from", "to", "sort", "cursor", "limit"}
        for sort in parameters["sort"]["enum"]:
            assert api.get(f"/api/{tab.value}", params={"sort": sort}).status_code == 200


schema = schemathesis.openapi.from_dict(document())


@schema.parametrize()
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
def test_the_api_does_what_its_document_says(case: schemathesis.Case, api: httpx.Client) -> None:
    """Whatever is asked, the answer has a status, a media type and a body that the document describes."""
    # Which texts are filters, times and cursors is said by a grammar, not by JSON Schema: some get a 400.
    # In a URL one text and a list of one are the same, and a parameter without a value is none, as forms send it.
    unsaid = ("positive_data_acceptance", "negative_data_rejection")
    beyond_json_schema = [check for check in CHECKS.get_all() if check.__name__ in unsaid]
    case.call_and_validate(base_url=str(api.base_url), excluded_checks=beyond_json_schema)
