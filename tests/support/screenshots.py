"""Takes the README's pictures of the traces page, light and dark, of a believable day in a processor of its own.

    make screenshots

They are as wide as 1,280 pixels of a page at twice the density, in few colours: crisp, and small enough for a
repository.
"""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from PIL import Image

from support.page import NO_BROWSER, PageUnderTest, chromium, page_under_test, running_browser

if TYPE_CHECKING:
    from playwright.sync_api import Page

REPOSITORY = Path(__file__).resolve().parents[2]
IMAGES = REPOSITORY / "docs" / "images"
MAX_BYTES = 200 * 1024
COLOURS = 256


def fill(site: PageUnderTest) -> None:
    """Send the believable day."""
    environment = {**os.environ, "OTEL_EXPORTER_OTLP_ENDPOINT": site.processor.endpoint}
    subprocess.run([sys.executable, REPOSITORY / "examples" / "believable_day.py"], env=environment, check=True)


def open_traces(tab: Page, site: PageUnderTest) -> None:
    """Show a day of traces with a filter."""
    tab.goto(f"{site.url}/traces?{urlencode({'filter': 'metadata:plan is pro', 'last': '1d'})}")


def open_trace(tab: Page, site: PageUnderTest) -> None:
    """Show a trace in which something failed, with a model's span selected."""
    tab.goto(f"{site.url}/traces?{urlencode({'filter': 'workflow is invoice-agent and errors > 0', 'last': '1d'})}")
    tab.locator("td.start .open").first.click()
    tab.locator(".span .open", has_text="chat").first.click()
    tab.wait_for_function("document.querySelector('#span h2').innerText.startsWith('chat')")
    tab.mouse.move(0, 0)


def open_users(tab: Page, site: PageUnderTest) -> None:
    """Show the end users of a day."""
    tab.goto(f"{site.url}/users?last=1d")


VIEWS = {"traces": open_traces, "trace": open_trace, "users": open_users}


def compressed(picture: bytes) -> bytes:
    """Return a picture with few colours, which a page without photographs has anyway."""
    written = io.BytesIO()
    image = Image.open(io.BytesIO(picture)).convert("RGB")
    # Its way to choose them keeps those of which there is little, such as the red of an error.
    image.quantize(COLOURS, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE).save(written, "PNG", optimize=True)
    return written.getvalue()


def main() -> int:
    """Write the pictures, and say how large they are."""
    path = chromium()
    if path is None:
        print(NO_BROWSER, file=sys.stderr)
        return 1
    IMAGES.mkdir(parents=True, exist_ok=True)
    with page_under_test() as site, running_browser(path) as browser:
        fill(site)
        for scheme in ("light", "dark"):
            context = browser.new_context(
                viewport={"width": 1280, "height": 760},
                device_scale_factor=2,
                color_scheme="dark" if scheme == "dark" else "light",
            )
            for name, show in VIEWS.items():
                tab = context.new_page()
                show(tab, site)
                picture = compressed(tab.screenshot())
                if len(picture) > MAX_BYTES:
                    print(f"{name}-{scheme} would take {len(picture):,} bytes", file=sys.stderr)
                    return 1
                (IMAGES / f"{name}-{scheme}.png").write_bytes(picture)
                print(f"{name}-{scheme}.png: {len(picture):,} bytes")
                tab.close()
            context.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
