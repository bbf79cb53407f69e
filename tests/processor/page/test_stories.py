"""What people do on the page, in a real browser."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from support.page import ODD_USER, SCRIPT, MadeTrace, PageUnderTest, page_under_test

EVERYBODY = ["bob", "carol", "alice", "", "bob", "", ODD_USER, "bob", "Ali", "alice", "alice"]
"""Whose the usual traces are, the newest first; empty for nobody."""


def ask(tab: Page, text: str) -> None:
    """Type a filter and press Enter."""
    tab.locator("#filter").fill(text)
    tab.locator("#filter").press("Enter")
    tab.wait_for_url(re.compile(r"filter="))


def shown_users(tab: Page) -> list[str]:
    return [
        cell.locator(".who").inner_text() if cell.locator(".who").count() else ""
        for cell in tab.locator("td.user").all()
    ]


@pytest.mark.parametrize(
    ("text", "users"),
    [
        ("end_user is alice", ["alice"] * 3),
        ("end_user is not alice", [one for one in EVERYBODY if one != "alice"]),
        ("end_user contains ALI", ["alice", "Ali", "alice", "alice"]),
        ("end_user does not contain ali", [one for one in EVERYBODY if "ali" not in one.lower()]),
        ("end_user starts with al", ["alice", "Ali", "alice", "alice"]),
        ("end_user ends with ob", ["bob"] * 3),
        ("end_user is any of bob, carol", ["bob", "carol", "bob", "bob"]),
        ("end_user is none of bob, carol", [one for one in EVERYBODY if one not in ("bob", "carol")]),
        ("end_user is set", [one for one in EVERYBODY if one]),
        ("end_user is not set", ["", ""]),
        ("metadata:plan is pro", ["bob", "alice", "alice"]),
        ("metadata:company.size > 39", ["alice", "alice"]),
        ("metadata:plan is pro and workflow is chat", ["alice", "alice"]),
        ("end_user contains ali and metadata:plan is pro and tokens > 1000", ["alice", "alice"]),
    ],
)
def test_a_filter_as_one_types_it_selects(tab: Page, text: str, users: list[str]) -> None:
    """A filter typed in words and sent with Enter lists the traces that it says, newest first."""
    tab.goto("/traces")
    ask(tab, text)
    assert shown_users(tab) == users


def test_from_a_name_to_a_person_and_their_link(tab: Page, browser: Browser) -> None:
    """From the bare address: filter by end user and plan, open a trace, see whose it is, open the person, share it."""
    tab.goto("/")
    tab.keyboard.press("/")
    tab.keyboard.type("end_user contains ali")
    tab.keyboard.press("Enter")
    tab.wait_for_url(re.compile("end_user"))
    tab.locator("#filter").press("End")
    tab.keyboard.type(" and metadata:plan is pro")
    tab.keyboard.press("Enter")
    tab.wait_for_url(re.compile("plan"))
    tab.locator("td.start .open").first.click()
    expect(tab.locator(".person .source")).to_contain_text("set by trace() where the work began")
    tab.locator(".person").get_by_role("link", name="alice").click()
    expect(tab.locator(".sums")).to_contain_text("Last seen")
    expect(tab.get_by_role("heading", name="Latest sessions")).to_be_visible()
    with browser.new_context() as elsewhere:
        colleague = elsewhere.new_page()
        colleague.goto(tab.url)
        for part in ("h1", ".head .pairs", ".sums", "td.name"):
            assert colleague.locator(part).all_inner_texts() == tab.locator(part).all_inner_texts() != []


def test_a_filter_is_a_chip_too(tab: Page) -> None:
    """What is typed shows as chips; a chip can be added, turned into its opposite and removed, and the text follows."""
    tab.goto("/traces")
    ask(tab, "end_user contains ali")
    tab.locator(".chip.add summary").click()
    editor = tab.locator(".chip.add .editor")
    editor.get_by_label("Field").select_option("metadata")
    editor.get_by_label("Metadata key").fill("plan")
    editor.get_by_label("Compares").select_option("is")
    editor.get_by_label("Value").fill("pro")
    editor.get_by_role("button", name="Add filter").click()
    expect(tab.locator("#filter")).to_have_value("end_user contains ali and metadata:plan is pro")
    assert shown_users(tab) == ["alice", "alice"]
    tab.get_by_text("metadata plan is “pro”", exact=True).click()
    tab.get_by_role("link", name="Say the opposite").click()
    expect(tab.locator("#filter")).to_have_value("end_user contains ali and metadata:plan is not pro")
    assert shown_users(tab) == ["alice", "Ali"]
    tab.get_by_role("link", name="Remove: end user contains “ali”").click()
    expect(tab.locator("#filter")).to_have_value("metadata:plan is not pro")


def test_a_link_shows_a_colleague_the_same(tab: Page, browser: Browser) -> None:
    """An address with an id full of special characters, opened in another browser, shows the same filter and rows."""
    tab.goto("/traces")
    tab.locator("td.user").get_by_role("link", name=ODD_USER).click()
    assert shown_users(tab) == [ODD_USER]
    written = tab.locator("#filter").input_value()
    colleague = browser.new_context().new_page()
    colleague.goto(tab.url)
    assert shown_users(colleague) == [ODD_USER]
    assert colleague.locator("#filter").input_value() == written
    colleague.reload()
    assert shown_users(colleague) == [ODD_USER]
    colleague.context.close()


def test_filters_stay_from_tab_to_tab(tab: Page) -> None:
    """Traces, Sessions and Users share the filters, and going back brings the list before."""
    tab.goto("/traces?filter=metadata%3Aplan+is+free")
    tab.get_by_role("navigation", name="Views").get_by_role("link", name="Users").click()
    expect(tab.locator("td.name")).to_have_text(["carol", "Ali"], use_inner_text=True)
    tab.get_by_role("navigation", name="Views").get_by_role("link", name="Sessions").click()
    expect(tab.locator("td.name")).to_have_text(["kiosk"], use_inner_text=True)
    tab.go_back()
    expect(tab.locator("td.name")).to_have_text(["carol", "Ali"], use_inner_text=True)


def test_a_trace_says_whose_it_is_and_why(tab: Page) -> None:
    """An open trace shows the end user with metadata and source, the messages of its model, and its neighbours."""
    tab.goto("/traces?filter=end_user+is+alice+and+workflow+is+chat")
    tab.locator("td.start .open").first.click()
    card = tab.locator(".person")
    expect(card).to_contain_text("alice")
    expect(card).to_contain_text("company.size 40")
    expect(card).to_contain_text("set by trace() where the work began")
    tab.locator(".span .open", has_text="gpt").click()
    expect(tab.locator("#span")).to_contain_text("It left this morning.")
    assert "span=" in tab.url
    tab.reload()
    expect(tab.locator("#span")).to_contain_text("Where is my order?")
    tab.get_by_role("link", name="Next").click()
    expect(tab.locator(".person")).to_contain_text("alice")
    expect(tab.get_by_role("link", name="Next")).to_have_count(0)
    tab.get_by_role("link", name="Previous").click()
    expect(tab.get_by_role("link", name="Previous")).to_have_count(0)


def test_an_end_user_s_own_page(tab: Page) -> None:
    """From the list to the person: latest metadata, sessions and traces, and a link to all of them."""
    tab.goto("/users")
    tab.get_by_role("link", name="alice", exact=True).click()
    expect(tab.locator("h1")).to_contain_text("alice")
    expect(tab.locator(".head")).to_contain_text("plan pro")
    expect(tab.locator(".sums")).to_contain_text("2.47k")
    tab.get_by_role("link", name="all of them").click()
    expect(tab.locator("#filter")).to_have_value("end_user is alice")


def test_a_session_shows_its_turns(tab: Page) -> None:
    """A session lists its turns in order with what was said, and names it where they have several end users."""
    tab.goto("/sessions")
    expect(tab.locator("tr", has_text="kiosk")).to_contain_text("mixed")
    tab.get_by_role("link", name="kiosk").click()
    turns = tab.locator(".turn")
    expect(turns).to_have_count(2)
    expect(turns.nth(0)).to_contain_text("carol")
    expect(turns.nth(1)).to_contain_text("bob")
    expect(turns.nth(1)).to_contain_text("It left this morning.")
    expect(tab.locator(".finding")).to_contain_text("Several end users")


def test_the_keyboard_is_enough(tab: Page) -> None:
    """A slash leads to the filter, j and k through rows, Enter opens, n goes on, Esc goes back, ? explains."""
    tab.goto("/traces")
    tab.keyboard.press("/")
    expect(tab.locator("#filter")).to_be_focused()
    tab.keyboard.type("workflow is chat")
    tab.keyboard.press("Enter")
    tab.wait_for_url(re.compile("filter=workflow"))
    for key in "jjk":
        tab.keyboard.press(key)
    expect(tab.locator("td.start .open").first).to_be_focused()
    tab.keyboard.press("Enter")
    expect(tab.locator(".person")).to_contain_text("bob")
    tab.keyboard.press("n")
    expect(tab.locator(".person")).to_contain_text("carol")
    tab.keyboard.press("j")
    expect(tab.locator("#span h2")).to_have_text("gpt")
    expect(tab.locator("#span")).to_contain_text("429: too many requests")
    tab.keyboard.press("Escape")
    expect(tab.locator("#filter")).to_have_value("workflow is chat")
    tab.keyboard.press("?")
    expect(tab.get_by_role("dialog")).to_be_visible()
    tab.keyboard.press("Escape")
    expect(tab.get_by_role("dialog")).to_have_count(0)


def test_proposals_while_typing(tab: Page) -> None:
    """Fields, operators and observed values are proposed with counts, and taken with the keyboard."""
    tab.goto("/traces")
    tab.locator("#filter").click()
    tab.keyboard.type("end")
    expect(tab.get_by_role("option").first).to_contain_text("end_user")
    tab.keyboard.press("ArrowDown")
    tab.keyboard.press("Enter")
    expect(tab.get_by_role("option").first).to_have_text("is")
    tab.keyboard.type("is al")
    expect(tab.get_by_role("option").filter(has_text="alice")).to_contain_text("3 traces")
    tab.keyboard.press("ArrowDown")
    tab.keyboard.press("Tab")
    expect(tab.locator("#filter")).to_have_value("end_user is alice")


def test_a_mistake_is_shown_where_it_is(tab: Page) -> None:
    """A filter that cannot be read keeps its text, marks the place, and says what would fit."""
    tab.goto("/traces")
    ask(tab, "end_user is bob and end_usr is alice")
    expect(tab.locator("#question mark")).to_have_text("end_usr")
    expect(tab.locator("#question")).to_contain_text("end_user")
    expect(tab.locator("#filter")).to_have_value("end_user is bob and end_usr is alice")


def test_an_empty_list_says_which_filter_is_the_reason(tab: Page) -> None:
    """Where nothing fits, each filter that alone excludes everything can be removed, with what is then there."""
    tab.goto("/traces?filter=end_user+is+alice+and+workflow+is+billing")
    expect(tab.locator(".empty")).to_contain_text("without it there are 3")
    tab.get_by_role("link", name="Remove the filter: workflow is “billing”").click()
    assert shown_users(tab) == ["alice"] * 3


def test_an_empty_store_says_where_to_send(tab: Page) -> None:
    """Before the first trace the page names the addresses that the processor receives at, with their real ports."""
    with page_under_test() as empty:
        other = tab.context.new_page()
        other.goto(f"{empty.url}/traces")
        expect(other.locator(".empty")).to_contain_text("Waiting for the first trace")
        expect(other.locator(".empty")).to_contain_text(empty.processor.endpoint)
        expect(other.locator(".empty")).to_contain_text(empty.processor.http_endpoint)
        empty.send(MadeTrace(1, 1).root("hello", "alice"))
        expect(other.locator("td.user")).to_have_text("alice")
        other.close()


def test_new_traces_do_not_move_what_is_read(tab: Page, site: PageUnderTest) -> None:
    """A trace that arrives is announced, at once to who comes back to the tab; the rows change when one asks for it."""
    tab.goto("/traces?filter=workflow+is+live")
    expect(tab.locator(".empty")).to_be_visible()
    site.send(MadeTrace(101, 60, workflow="live").root("one", "zoe"))
    expect(tab.locator("td.user")).to_have_count(1)
    site.send(MadeTrace(102, 30, workflow="live").root("two", "yan"))
    tab.evaluate("document.dispatchEvent(new Event('visibilitychange', {bubbles: true}))")
    expect(tab.locator(".newer")).to_contain_text("1 new trace")
    assert shown_users(tab) == ["zoe"]
    tab.locator(".newer").click()
    expect(tab.locator("td.user")).to_have_count(2)


def test_it_works_without_scripts(browser: Browser, site: PageUnderTest) -> None:
    """With scripts off one can filter, open a trace, select a span, and go on to the next."""
    context = browser.new_context(base_url=site.url, java_script_enabled=False)
    tab = context.new_page()
    tab.goto("/traces")
    tab.locator(".chip.add summary").click()
    editor = tab.locator(".chip.add .editor")
    editor.get_by_label("Value").fill("carol")
    editor.get_by_role("button").click()
    assert shown_users(tab) == ["carol"]
    tab.locator("td.start .open").click()
    tab.locator(".span .open", has_text="gpt").click()
    assert "429: too many requests" in tab.locator("#span").inner_text()
    tab.locator("#filter, .crumbs a").first.click()
    assert shown_users(tab) == ["carol"]
    context.close()


def test_names_are_shown_and_never_run(tab: Page) -> None:
    """A span, an attribute and a service that are named like a script show as text on every page."""
    tab.goto("/traces")
    tab.locator("tr", has_text="no end user").locator(".open").click()
    expect(tab.locator("h1")).to_contain_text(SCRIPT)
    tab.locator(".span .open").last.click()
    expect(tab.locator("#span h2")).to_have_text(SCRIPT)
    tab.goto("/coverage")
    expect(tab.locator("main")).to_contain_text(SCRIPT[:30])
    assert tab.title() != "stolen"


def test_signing_in(browser: Browser, tmp_path: Path) -> None:
    """With a token the page asks for it, says when it is wrong, shows what was asked for, and lets one leave again."""
    (tmp_path / "token").write_text("the-token-of-this-page\n")
    with page_under_test("--page-token-file", str(tmp_path / "token")) as locked:
        context = browser.new_context(base_url=locked.url, color_scheme="dark")
        tab = context.new_page()
        tab.goto("/users?filter=end_user+is+alice")
        assert serious_violations(tab) == []
        expect(tab.get_by_role("button", name="Sign out")).to_have_count(0)
        tab.get_by_label("Token").fill("a guess")
        tab.get_by_label("Token").press("Enter")
        expect(tab.get_by_role("alert")).to_contain_text("This is not the token.")
        tab.get_by_label("Token").fill("the-token-of-this-page")
        tab.get_by_role("button", name="Sign in").click()
        expect(tab.locator("#filter")).to_have_value("end_user is alice")
        tab.get_by_role("button", name="Sign out").click()
        tab.goto("/traces")
        expect(tab.get_by_label("Token")).to_be_focused()
        context.close()


PAGES = {
    "traces": "/traces",
    "filtered": "/traces?filter=end_user+contains+ali+and+metadata%3Aplan+is+pro",
    "mistake": "/traces?filter=end_usr+is+alice",
    "nothing": "/traces?filter=workflow+is+billing",
    "trace": f"/traces/{1:032x}",
    "override": f"/traces/{7:032x}",
    "orphan": f"/traces/{8:032x}",
    "conflict": f"/traces/{9:032x}",
    "error": f"/traces/{10:032x}",
    "sessions": "/sessions",
    "session": "/session?id=kiosk",
    "users": "/users",
    "user": "/user?id=alice",
    "coverage": "/coverage",
    "nowhere": "/nowhere",
}


def serious_violations(tab: Page) -> list[tuple[str, list[str]]]:
    found = Axe().run(tab).response["violations"]
    serious = [one for one in found if one["impact"] in ("serious", "critical")]
    return [(one["id"], [node["html"][:150] for node in one["nodes"]][:3]) for one in serious]


@pytest.mark.parametrize("address", PAGES.values(), ids=PAGES)
def test_nobody_stumbles(tab: Page, address: str) -> None:
    """axe finds no serious violation on any page, in light and in dark, and at 390 pixels nothing runs out of it."""
    tab.emulate_media(color_scheme="light", reduced_motion="reduce")
    tab.goto(address)
    assert serious_violations(tab) == []
    tab.emulate_media(color_scheme="dark", reduced_motion="reduce")
    tab.set_viewport_size({"width": 390, "height": 844})
    assert tab.evaluate("document.documentElement.scrollWidth") <= 390
    assert serious_violations(tab) == []


def test_colours_can_be_chosen(tab: Page) -> None:
    """The button goes from the system's colours to light and dark, and the choice stays."""
    tab.goto("/traces")
    button = tab.get_by_role("button", name="Colours")
    button.click()
    button.click()
    assert tab.locator("html").get_attribute("data-theme") == "dark"
    tab.reload()
    assert tab.locator("html").get_attribute("data-theme") == "dark"
