"""Templates, addresses and what every page knows. All text is escaped; only `charts` makes markup of its own."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.responses import HTMLResponse

from neatlogs_processor.page import charts, content, identity, shown
from neatlogs_processor.query.fields import FIELDS, Field, Operator
from neatlogs_processor.query.filters import MAX_VALUE_CHARS, Filter, Scalar
from neatlogs_processor.query.text import render
from neatlogs_processor.query.view import DEFAULT_PERIOD, SORTS, Period, Sort, Tab, View

_HERE: Final = Path(__file__).parent
STATIC: Final = _HERE / "static"
_HOUR: Final = 3_600_000_000_000
PERIODS: Final = (
    ("15 min", Period(last=_HOUR // 4)),
    ("1 h", Period(last=_HOUR)),
    ("24 h", Period(last=24 * _HOUR)),
    ("7 d", DEFAULT_PERIOD),
    ("30 d", Period(last=30 * 24 * _HOUR)),
    ("All", Period()),
)
"""The periods that are offered, with their labels."""


class Links:
    """The addresses of everything, below the path that a reverse proxy serves the page under.

    Args:
        root: That path without a slash at its end; empty for none.
    """

    def __init__(self, root: str = "") -> None:
        self.root = root
        version = hashlib.sha256(b"".join(path.read_bytes() for path in sorted(STATIC.iterdir()))).hexdigest()[:12]
        self._version = version

    def view(self, view: View) -> str:
        """Return the address of a view."""
        return self.root + view.url

    def user(self, view: View, end_user: str) -> str:
        """Return the address of an end user's own page, within the view's filters and period.

        An id that no address can hold leads to the list.
        """
        if len(end_user) > MAX_VALUE_CHARS:
            return self.view(view)
        return f"{self.root}/user?{self._with(view, id=end_user)}"

    def session(self, view: View, session: str) -> str:
        """Return the address of a session's own page; see `user`."""
        if len(session) > MAX_VALUE_CHARS:
            return self.view(view)
        return f"{self.root}/session?{self._with(view, id=session)}"

    def span(self, view: View, span_id: str) -> str:
        """Return the address of an open trace with one span selected."""
        path = view.opening(view.trace).url.partition("?")[0]
        return f"{self.root}{path}?{self._with(view, span=span_id)}"

    def live(self, view: View, than: str) -> str:
        """Return the address that says whether there are newer traces than one."""
        return f"{self.root}/live?{self._with(view, than=than)}"

    def with_text(self, view: View, typed: str) -> str:
        """Return the address of a view with one filter more that may not be readable."""
        path = self.root + view.url.partition("?")[0]
        return f"{path}?" + "&".join(part for part in (view.query, urlencode({"filter": typed})) if part)

    def csv(self, view: View) -> str:
        """Return the address of the list as CSV."""
        path, _, query = view.from_cursor(None).url.partition("?")
        return f"{self.root}/api{path}.csv" + (f"?{query}" if query else "")

    def static(self, name: str) -> str:
        """Return the address of a file that belongs to the page; it changes with the file."""
        return f"{self.root}/static/{name}?v={self._version}"

    def to(self, path: str) -> str:
        """Return any other address."""
        return self.root + path

    @staticmethod
    def _with(view: View, **more: str) -> str:
        return "&".join(part for part in (urlencode(more), view.query) if part)


def filter_by(view: View, name: str, value: Any, key: str = "") -> View | None:
    """Return the view narrowed to one value of a field, or `None` where no filter can say it."""
    if value is None or isinstance(value, (list, dict)):
        return None
    if name == "metadata" and not isinstance(value, str):
        value = Scalar({True: "true", False: "false"}.get(value) or str(value)) if _fits(value) else str(value)
    try:
        return view.adding(Filter(Field(name, key), Operator.IS, (value,)))
    except ValueError:
        return None


def _fits(value: Any) -> bool:
    try:
        Scalar({True: "true", False: "false"}.get(value) or str(value))
    except (ValueError, TypeError):
        return False
    return True


def missing(view: View, name: str) -> View | None:
    """Return the view narrowed to traces in which the field is not set."""
    try:
        return view.adding(Filter(Field(name), Operator.IS_NOT_SET))
    except ValueError:
        return None


def sorted_by(view: View, key: str) -> View:
    """Return the view sorted by this; sorted by it the other way round where it already is."""
    order = view.order
    return view.sorted_by(Sort(key, descending=not order.descending if order.key == key else key != "end_user"))


def flatten(metadata: Any, limit: int = 40, *, plain_first: bool = False) -> list[tuple[str, Any]]:
    """Return the members of nested metadata by their dotted keys, in their order or those at the top first."""
    found: list[tuple[str, Any]] = []

    def walk(prefix: str, value: Any, depth: int) -> None:
        if isinstance(value, dict) and value and depth < 8:
            for key, inner in value.items():
                walk(f"{prefix}.{key}" if prefix else str(key), inner, depth + 1)
        elif prefix and len(found) < limit:
            found.append((prefix, value))

    walk("", metadata, 0)
    if plain_first:
        found.sort(key=lambda member: member[0] not in metadata)
    return found


def _whole(text: str) -> str:
    """Return text that UTF-8 can hold: JSON inside an attribute may spell half of a surrogate pair."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


class Renderer:
    """Makes answers out of templates.

    Args:
        links: The addresses.
        clock: Returns nanoseconds since the epoch.
        signed_in: Whether people sign in, and so may sign out.
    """

    def __init__(self, links: Links, *, clock: Callable[[], int], signed_in: bool = False) -> None:
        self.links = links
        self.clock = clock
        self._environment = Environment(
            loader=FileSystemLoader(_HERE / "templates"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._environment.globals.update(
            links=links,
            shown=shown,
            charts=charts,
            content=content,
            identity=identity,
            filter_by=filter_by,
            missing=missing,
            sorted_by=sorted_by,
            flatten=flatten,
            filter_text=render,
            fields=FIELDS,
            operators=list(Operator),
            periods=PERIODS,
            sorts=SORTS,
            tabs=list(Tab),
            Tab=Tab,
            Period=Period,
            signed_in=signed_in,
        )

    def text(self, template: str, **values: Any) -> str:
        """Return a rendered template."""
        values.setdefault("now", self.clock())
        return _whole(self._environment.get_template(template).render(**values))

    def page(self, template: str, *, status: int = 200, **values: Any) -> HTMLResponse:
        """Return a rendered template as an answer."""
        values.setdefault("question", None)
        values.setdefault("signing_in", False)
        # A session is opened within the filters of traces.
        values.setdefault("active", None)
        return HTMLResponse(self.text(template, **values), status_code=status)
