"""What each view says, about each state that a trace, a session, an end user and a service can be in."""

from __future__ import annotations

import re
from datetime import datetime, timedelta, timezone
from urllib.parse import parse_qs, urlsplit

import pytest
from playwright.sync_api import Page, expect

from support.page import MODEL, ODD_USER, MadeTrace, PageUnderTest

LONG_USER = "u_" + "0123456789abcdef" * 30


def filters_of(tab: Page) -> list[str]:
    return parse_qs(urlsplit(tab.url).query).get("filter", [])


@pytest.mark.parametrize(
    ("address", "row", "cell", "filters"),
    [
        ("/traces", "carol", "td.workflow a", ["workflow is chat"]),
        ("/traces", "carol", "td.session a", ["session is kiosk"]),
        ("/traces", "carol", "td.status a", ["status is error"]),
        ("/traces", "carol", "td.user a", ["end_user is carol"]),
        ("/traces", "no end user", "td.user a", ["end_user is not set"]),
        ("/sessions", "s-1", "td.user a", ["end_user is alice"]),
        ("/sessions", "s-1", "td.workflow a", ["workflow is chat"]),
        ("/users", "carol", "td.metadata a", ["metadata:plan is free"]),
        ("/users", "bob", "td.metadata a >> nth=1", ["metadata:seats is 3"]),
        ("/coverage", "tool", "td:nth-child(2) a", ["service is chat-api"]),
    ],
)
def test_a_value_filters_by_itself(tab: Page, address: str, row: str, cell: str, filters: list[str]) -> None:
    """A click on a value of a list adds the filter that says it."""
    tab.goto(address)
    rows = tab.locator("tbody tr", has_text=row)
    rows.first.locator(cell).first.click()
    expect(tab.locator("#filter")).to_have_value(" and ".join(filters))
    assert filters_of(tab) == filters


def test_values_add_up(tab: Page) -> None:
    """A second value narrows what the first has left, and leads to no filter that is there already."""
    tab.goto("/traces?filter=workflow+is+chat")
    tab.locator("td.user", has_text="alice").first.get_by_role("link").click()
    expect(tab.locator("#filter")).to_have_value("workflow is chat and end_user is alice")
    tab.locator("td.user").first.get_by_role("link").click()
    expect(tab.locator("#filter")).to_have_value("workflow is chat and end_user is alice")


def test_periods(tab: Page) -> None:
    """Presets and a period of one's own choose what counts, stay with the filters, and are named when nothing fits."""
    tab.goto("/traces?filter=end_user+is+alice")
    period = tab.get_by_role("navigation", name="Period")
    period.get_by_role("link", name="1 h").click()
    expect(period.locator("[aria-current]")).to_have_text("1 h")
    expect(tab.locator("td.user")).to_have_count(3)
    period.get_by_text("Custom").click()
    year = datetime.now(timezone.utc).year
    period.get_by_label("From (UTC)").fill(f"{year - 1}-01-02T03:04:05")
    period.get_by_label("Until (UTC)").fill(f"{year - 1}-02-03T04:05:06")
    period.get_by_role("button", name="Show").click()
    expect(period.locator("[aria-current]")).to_have_text(f"2 Jan {year - 1} \N{EN DASH} 3 Feb {year - 1}")
    expect(period.locator("[aria-current] [title]")).to_have_attribute(
        "title", re.compile(f"{year - 1}-01-02T03:04:05")
    )
    expect(tab.locator("#filter")).to_have_value("end_user is alice")
    expect(tab.locator(".empty")).to_contain_text("outside the period there are 3 more")
    tab.get_by_role("link", name="Look at all time").click()
    expect(tab.locator("td.user")).to_have_count(3)


def test_the_newest_comes_first_and_any_number_can(tab: Page) -> None:
    """Lists begin with the newest; a heading sorts by its column, and once more the other way round."""
    tab.goto("/traces")
    starts = [one.get_attribute("datetime") for one in tab.locator("td.start time").all()]
    assert starts == sorted(starts, reverse=True, key=str)
    tab.get_by_role("columnheader", name="Tokens").get_by_role("link").click()
    expect(tab.get_by_role("columnheader", name="Tokens")).to_have_attribute("aria-sort", "descending")
    expect(tab.locator("td.tokens").first).to_have_text("1,234")
    tab.get_by_role("columnheader", name="Tokens").get_by_role("link").click()
    expect(tab.locator("td.tokens").first).to_have_text("0")


@pytest.mark.parametrize(
    ("number", "card", "finding"),
    [
        (6, "Nobody", ["No end user", "no source gave an identity", "Pass end_user_id to trace()"]),
        (7, "bob", ["1 override ignored", "neatlogs.end_user.id on a child span tool in chat-api", "set_end_user()"]),
        (8, "Not known", ["Root not received", "may have been killed", "--roots entry"]),
        (9, "alice", ["Conflict: 2 root spans", "speaks for the trace: alice", "is ignored: mallory", "traceparent"]),
    ],
    ids=["no end user", "override", "root not received", "conflict"],
)
def test_a_trace_says_what_is_wrong_and_what_to_do(tab: Page, number: int, card: str, finding: list[str]) -> None:
    """Each way in which an identity can be open has words of its own: what is the case, the likely cause, the fix."""
    tab.goto(f"/traces/{number:032x}")
    expect(tab.locator(".person .id")).to_have_text(card)
    expect(tab.locator(".finding")).to_have_count(1)
    for words in finding:
        expect(tab.locator(".finding")).to_contain_text(words, use_inner_text=True)


def test_of_two_roots_one_speaks(tab: Page) -> None:
    """In the waterfall the root that speaks for the trace looks unlike the other, which says why when selected."""
    tab.goto(f"/traces/{9:032x}")
    expect(tab.locator(".span .state.root")).to_have_count(1)
    expect(tab.locator(".span", has_text="second").locator(".state.late")).to_have_text("root")
    tab.locator(".span .open", has_text="second").click()
    expect(tab.locator("#span")).to_contain_text("Another root speaks for this trace first started earlier.")


def test_a_root_with_a_parent_of_zeros_is_a_root(tab: Page, site: PageUnderTest) -> None:
    """A parent span id of explicit zeros, as the JavaScript exporter writes it, is none."""
    trace = MadeTrace(201, 8 * 86_400).root("zeros", "alice")
    trace.request.resource_spans[0].scope_spans[0].spans[0].parent_span_id = bytes(8)
    site.send(trace)
    tab.goto(f"/traces/{201:032x}")
    expect(tab.locator(".span .state.root")).to_have_text("root")
    expect(tab.locator("#span")).not_to_contain_text("Parent")


def test_the_error_is_one_click_away(tab: Page) -> None:
    """The number of errors leads to the innermost span that failed, which says what went wrong."""
    tab.goto(f"/traces/{10:032x}")
    tab.locator(".head .facts a.bad").click()
    expect(tab.locator("#span h2")).to_have_text("gpt")
    expect(tab.locator("#span .problem")).to_contain_text("429: too many requests")


def test_sessions(tab: Page) -> None:
    """Sessions show how many turns they have and whose they are: one end user, or several as mixed."""
    tab.goto("/sessions")
    mine, shared = tab.locator("tr", has_text="s-1"), tab.locator("tr", has_text="kiosk")
    assert [cell.strip() for cell in mine.locator("td").all_inner_texts()][1:5] == ["s-1", "alice", "chat", "2"]
    expect(shared.locator("td.user")).to_have_text("mixed bob, carol", use_inner_text=True)
    mine.get_by_role("link", name="s-1").click()
    expect(tab.locator(".tabs [aria-current]")).to_have_text("Sessions")
    expect(tab.locator(".head")).to_contain_text("alice")
    expect(tab.locator(".finding")).to_have_count(0)
    starts = tab.locator(".turn .open").all_inner_texts()
    assert starts == sorted(starts)
    tab.locator(".turn .open").last.click()
    expect(tab.get_by_role("link", name="Previous")).to_have_count(0)
    tab.get_by_role("link", name="Next").click()
    expect(tab.get_by_role("link", name="Next")).to_have_count(0)


def test_users(tab: Page) -> None:
    """End users show their latest metadata, sums, first and last visit, and how their traces lie over time."""
    tab.goto("/users")
    row = tab.locator("tr", has_text="carol")
    expect(row.locator("td.metadata")).to_contain_text("plan free")
    assert row.locator("td.number").all_inner_texts() == ["1", "1", "2", "1,234"]
    assert "Traces over time" in str(row.locator("svg").get_attribute("aria-label"))
    first, last = (row.locator(f"td.{name} time").get_attribute("datetime") for name in ("first", "last"))
    assert first == last


@pytest.mark.parametrize(
    ("address", "found"),
    [
        ("/traces", ["carol", "Ali"]),
        ("/sessions", ["kiosk"]),
        ("/users", ["carol", "Ali"]),
    ],
)
def test_metadata_filters_every_list(tab: Page, address: str, found: list[str]) -> None:
    """On Traces the trace's own metadata counts, on Sessions that of any of its traces, on Users the latest."""
    tab.goto(f"{address}?filter=metadata%3Aplan+is+free")
    cells = "td.user" if address == "/traces" else "td.name"
    assert [text.strip() for text in tab.locator(cells).all_inner_texts()] == found


def test_coverage(tab: Page) -> None:
    """Coverage says by service and by day who has an end user, which handler forgot it, and whose claim was ignored."""
    tab.goto("/coverage?filter=service+is+chat-api")
    services = tab.get_by_role("table", name="By service").locator("tbody tr")
    assert services.locator("td.number").all_inner_texts() == ["100 %", "9", "0", "1"]
    days = tab.get_by_role("table", name="By day").locator("tbody tr")
    today = datetime.now(timezone.utc).date()
    assert set(days.locator("td.name").all_inner_texts()) <= {str(today), str(today - timedelta(days=1))}
    overrides = tab.locator("section", has_text="Overrides that are ignored").locator("tbody td").all_inner_texts()
    assert overrides == ["tool", "chat-api", "on a child span", "neatlogs.end_user.id", "1", "the latest one"]
    tab.goto("/coverage")
    handlers = tab.locator("section", has_text="Handlers that set no end user").locator("tbody tr")
    expect(handlers).to_have_count(1)
    handlers.get_by_role("link", name="the latest one").click()
    expect(tab.locator(".finding")).to_contain_text("No end user")


def test_an_odd_id_survives_everything(tab: Page) -> None:
    """A filter by an id of special characters is the same after a reload, on every tab, and after going back."""
    tab.goto("/users")
    tab.get_by_role("link", name=ODD_USER, exact=True).click()
    expect(tab.locator("h1 bdi")).to_have_text(ODD_USER)
    tab.get_by_role("link", name="all of them").click()
    typed = tab.locator("#filter").input_value()
    for name in ("Sessions", "Users", "Coverage", "Traces"):
        tab.get_by_role("navigation", name="Views").get_by_role("link", name=name).click()
        expect(tab.locator(".tabs [aria-current]")).to_have_text(name)
        tab.reload()
        expect(tab.locator("#filter")).to_have_value(typed)
    tab.locator("#filter").press("Enter")
    tab.wait_for_load_state()
    expect(tab.locator("td.user")).to_have_text(ODD_USER)
    tab.go_back()
    expect(tab.locator("#filter")).to_have_value(typed)


def test_what_is_listed_comes_as_csv(tab: Page) -> None:
    """Each list links to all of its rows as CSV, filtered as it is."""
    tab.goto("/traces?filter=end_user+is+carol")
    with tab.expect_download() as started:
        tab.get_by_role("link", name="CSV").click()
    text = started.value.path().read_text(encoding="utf-8")
    assert len(text.splitlines()) == 2
    assert "carol" in text


def test_long_names_stay_where_they_belong(tab: Page, site: PageUnderTest) -> None:
    """Names of hundreds of characters run out of no page of any width, and can be read in full."""
    trace = MadeTrace(202, 9 * 86_400, workflow="w" * 120)
    trace.root("name " * 60, LONG_USER, {"k" * 100: "v" * 300, "plan": "x" * 300}, "s" * 200)
    site.send(trace.child("child " * 60, {**MODEL, "a" * 200: "b" * 3000, "input.value": "c" * 3000}))
    addresses = ["/traces?last=30d", "/sessions?last=30d", "/users?last=30d", "/coverage?last=30d"]
    addresses += [f"/traces/{202:032x}", f"/session?id={'s' * 200}", f"/user?id={LONG_USER}&last=30d"]
    addresses += [f"/traces?last=30d&filter=end_user+is+not+{LONG_USER}"]
    for width in (1280, 900, 390):
        tab.set_viewport_size({"width": width, "height": 844})
        for address in addresses:
            tab.goto(address)
            assert tab.evaluate("document.documentElement.scrollWidth") <= width, (width, address)
    tab.goto(f"/traces/{202:032x}")
    expect(tab.locator(".person .id")).to_have_text(LONG_USER)


@pytest.mark.parametrize(
    ("address", "status", "says"),
    [
        ("/nowhere", 404, "There is no such page."),
        (f"/traces/{'9' * 32}", 404, "There is no such trace here."),
        ("/traces/not-a-trace", 400, "This address cannot be read"),
        ("/session?id=nowhere", 404, "There is no such session here."),
        ("/user?id=nobody", 404, "There is nothing of such an end user here."),
        ("/traces?from=yesterday", 400, "“from” in the address: A time is written"),
        ("/traces?cursor=stale", 400, "This address cannot be read"),
    ],
)
def test_an_address_that_leads_nowhere_says_so(tab: Page, address: str, status: int, says: str) -> None:
    """A page that is not there, or an address that says nothing sensible, is answered with words and a way on."""
    answer = tab.goto(address)
    assert answer is not None
    assert answer.status == status
    expect(tab.locator("main")).to_contain_text(re.compile(re.escape(says), re.IGNORECASE))
    assert tab.locator("main a, main button").count()
