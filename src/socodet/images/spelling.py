"""How names of images may be spelled: suffixes, accents, and the names in URLs."""

import posixpath
import re
import unicodedata
from urllib.parse import unquote

from socodet.images.suffixes import SUFFIXES

JPEG_SUFFIXES = (".jpg", ".jpeg", ".JPG", ".JPEG")
IN_QUERY = "/?d="
"""What precedes a name in Label Studio's URLs for its local storage."""


def spellings(name: str) -> list[str]:
    """The name, also with its suffix in lower or upper case, with JPEG's other suffixes, and in its `normal_forms`."""
    found = []
    for form in normal_forms(name):
        stem, suffix = posixpath.splitext(form)
        small = suffix.lower()
        others = (small, small.upper(), *(JPEG_SUFFIXES if small in JPEG_SUFFIXES else ()))
        found += [form, *(stem + other for other in others)] if small in SUFFIXES else [form]
    return list(dict.fromkeys(found))


def composed(name: str) -> str:
    """The name with accents composed with their letters (Unicode's NFC), for comparing names."""
    return unicodedata.normalize("NFC", name)


def normal_forms(name: str) -> list[str]:
    """The name, and the same text with accents composed (NFC) or decomposed (NFD), as in names that macOS wrote."""
    if name.isascii():
        return [name]
    return list(dict.fromkeys([name, *(unicodedata.normalize(form, name) for form in ("NFC", "NFD"))]))


def name_before_upload(name: str) -> str:
    """The file name of an image that was uploaded to Label Studio, which puts eight digits and letters before it."""
    uploaded = re.search(r"(?:^|/)upload/(?:\d+/)?[0-9a-f]{8}-([^/]+)$", name)
    return uploaded[1] if uploaded else name


def decode_url(name: str) -> str:
    """The path in a URL, without its query; `%20` is a space. Label Studio's local files have theirs in the query."""
    _, in_query, local = f"/{name}".partition(IN_QUERY)
    if in_query:
        return unquote(local)
    return unquote(re.sub(r"^\w+://[^/]*/|[?#].*", "", name) if "://" in name else name)
