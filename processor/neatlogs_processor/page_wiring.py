"""From settings to the traces page, as routes of the admin port."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Mount, Route

from neatlogs_processor.core.pseudonyms import PseudonymKeys
from neatlogs_processor.formats import ListenAddress
from neatlogs_processor.page.access import PageToken, read_token
from neatlogs_processor.page.api import api_routes
from neatlogs_processor.page.app import PageOptions, page
from neatlogs_processor.query.pseudonyms import PseudonymousReader
from neatlogs_processor.query.reader import TraceReader
from neatlogs_processor.reloading import Reloading
from neatlogs_processor.settings import Settings

_NO_PAGE: Final = (
    "There is no traces page here, because this processor keeps no traces. Start it with --store PATH (beside an"
    " upstream, too) to keep them.\n"
)


def page_routes(
    settings: Settings,
    reader: TraceReader | None,
    *,
    receiving: Mapping[str, ListenAddress],
    pseudonyms: Callable[[], PseudonymKeys] | None = None,
) -> Sequence[BaseRoute]:
    """Return the routes of the page over a store; they take what no other route of the port takes.

    Without a store those who look for the page are told why it is not there.

    Args:
        settings: The settings.
        reader: The store.
        receiving: Where traces are received, by protocol; it may be filled later.
        pseudonyms: Returns the keys with which ids are looked up, where the store holds pseudonyms.

    Raises:
        ConfigError: The file of the page's token cannot be used.
    """
    if reader is None:
        return [Route(path, _no_page) for path in ("/", "/traces", "/sessions", "/users", "/coverage")]
    if pseudonyms is not None:
        reader = PseudonymousReader(reader, pseudonyms)
    token = None
    path = settings.page_token_file
    if path is not None:
        token = PageToken(Reloading([path], lambda: read_token(path)).get)
    scheme = "http" if settings.tls_cert_file is None else "https"

    def where() -> list[tuple[str, str]]:
        return [(name, str(at) if at.path else f"{scheme}://{at}") for name, at in receiving.items()]

    options = PageOptions(
        root_path=settings.root_path,
        allowed_hosts=settings.allowed_hosts,
        token=token,
        where=where,
    )
    return [Mount("/", app=page(reader, options, api=api_routes(reader, root_path=settings.root_path)))]


def _no_page(_: Request) -> Response:
    return PlainTextResponse(_NO_PAGE, status_code=404)
