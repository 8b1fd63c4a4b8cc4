"""Checks a page in a real browser, at the widths of a phone and of a screen, in light and dark mode.

Chromium runs a script in the page that reports what it finds, which takes seconds and needs no package. With
SOCODET_SCREENSHOTS=FOLDER (`make screenshots`) screenshots of the pages are saved there.
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
"""Colour schemes and Chromium's numbers for them."""
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
"""Uses frames, because a window cannot be as narrow as a phone."""

needs_browser = pytest.mark.skipif(
    BROWSER is None, reason="no chromium or google-chrome is installed, so pages are not checked in a browser"
)


def check_in_browser(page: Path, scratch: Path, scheme: str) -> list[dict[str, Any]]:
    """Asserts that nothing is wrong with the page at any width; returns the report of each width."""
    said = browser_reports(page, scratch, scheme)
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


def browser_reports(page: Path, scratch: Path, scheme: str) -> list[dict[str, Any]]:
    """What `witness.js` reports about the page at each width."""
    document = scratch / f"{page.stem}-{scheme}.html"
    document.write_text(DOCUMENT.format(frames="".join(_frame(page, width, 900) for width in WIDTHS)))
    shown = _chromium(document, scratch, scheme, "--dump-dom")
    found = re.search(r"<pre>([^<]*)</pre></body>", shown)
    assert found, shown[-500:]
    said: list[dict[str, Any]] = json.loads(html.unescape(found[1]))
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
    """Saves a screenshot of the whole page if they are requested."""
    folder = os.environ.get("SOCODET_SCREENSHOTS")
    if not folder:
        return
    Path(folder).mkdir(parents=True, exist_ok=True)
    document = scratch / f"{page.stem}-{scheme}-{width}.html"
    document.write_text(DOCUMENT.format(frames=_frame(page, width, height)))
    image = Path(folder, f"{page.stem}-{width}-{scheme}.png").absolute()
    _chromium(document, scratch, scheme, f"--window-size={max(width, 500)},{height}", f"--screenshot={image}")
    assert image.stat().st_size > 10_000
