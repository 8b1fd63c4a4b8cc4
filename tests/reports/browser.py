"""A page in a real browser, as wide as a phone and as a screen, light and dark.

Chromium is called as it is, with a script in the page that says what it sees: that takes seconds and no package. With
SOCODET_SCREENSHOTS=FOLDER (`make screenshots`) the pages are kept there as images.
"""

import html
import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
WIDTHS = (390, 1280)
SCHEMES = {"dark": 0, "light": 1}
"""And Chromium's numbers for them."""
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--hide-scrollbars"),
    "--host-resolver-rules=MAP * ~NOTFOUND",
)
WITNESS = (Path(__file__).parent / "witness.js").read_text()
FRAME = '<iframe style="border: 0; width: {width}px; height: {height}px" srcdoc="{page}"></iframe>'
DOCUMENT = """<!doctype html><meta charset="utf-8"><meta name="color-scheme" content="light dark">
<body style="margin: 0">{frames}<script>onload = () => {{
  const said = [...document.querySelectorAll("iframe")].map(frame => frame.contentWindow.witness());
  const pre = document.createElement("pre"); pre.textContent = JSON.stringify(said); document.body.append(pre); }};
</script>"""
"""A window cannot be as narrow as a phone, a frame can."""

needs_browser = pytest.mark.skipif(
    BROWSER is None, reason="no chromium or google-chrome is installed, so no page is looked at in a browser"
)


def look(page: Path, scratch: Path, scheme: str) -> list[dict[str, Any]]:
    """What the page is like at each of the widths; what anybody would object to is asserted here."""
    said = witnesses(page, scratch, scheme)
    for width, witness in zip(WIDTHS, said, strict=True):
        where = f"{page.name} at {width} pixels, {scheme}"
        assert witness["wrong"] == [], where
        assert witness["fetched"] == [], where
        assert witness["width"] == width
        assert witness["scroll"] <= width, where
        assert witness["beyond"] == [], where
        assert witness["faint"] == [], where
        assert witness["dark"] is (scheme == "dark"), where
        assert all(min(sizes) > 0 for sizes in witness["seen"]), where
        _keep(page, scratch, scheme, width, witness["height"])
    return said


def witnesses(page: Path, scratch: Path, scheme: str) -> list[dict[str, Any]]:
    """What `witness.js` says of the page at each of the widths."""
    document = scratch / f"{page.stem}-{scheme}.html"
    document.write_text(DOCUMENT.format(frames="".join(_frame(page, width, 900) for width in WIDTHS)))
    shown = _chromium(document, scratch, scheme, "--dump-dom")
    told = re.search(r"<pre>([^<]*)</pre></body>", shown)
    assert told, shown[-500:]
    said: list[dict[str, Any]] = json.loads(html.unescape(told[1]))
    return said


def _frame(page: Path, width: int, height: int) -> str:
    watched = page.read_text().replace("<head>", f"<head><script>{WITNESS}</script>", 1)
    return FRAME.format(width=width, height=height, page=html.escape(watched))


def _chromium(document: Path, scratch: Path, scheme: str, *flags: str) -> str:
    return subprocess.run(
        [
            *(str(BROWSER), *FLAGS, f"--user-data-dir={scratch / 'profile'}"),
            *(f"--blink-settings=preferredColorScheme={SCHEMES[scheme]}", *flags, document.as_uri()),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    ).stdout


def _keep(page: Path, scratch: Path, scheme: str, width: int, height: int) -> None:
    """A screenshot of the whole page, if they are asked for."""
    folder = os.environ.get("SOCODET_SCREENSHOTS")
    if not folder:
        return
    Path(folder).mkdir(parents=True, exist_ok=True)
    document = scratch / f"{page.stem}-{scheme}-{width}.html"
    document.write_text(DOCUMENT.format(frames=_frame(page, width, height)))
    image = Path(folder, f"{page.stem}-{width}-{scheme}.png").absolute()
    _chromium(document, scratch, scheme, f"--window-size={max(width, 500)},{height}", f"--screenshot={image}")
    assert image.stat().st_size > 10_000
