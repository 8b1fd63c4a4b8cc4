"""Finds the images that Label Studio renamed when they were uploaded, by their names from before the upload."""

import posixpath
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import unquote

from socodet.images.lists import folders_near, names_in
from socodet.images.spelling import decode_url, name_before_upload, normal_forms
from socodet.images.suffixes import SUFFIXES


def renamed_uploads(written: Sequence[str], file: Path, images: Path | None) -> Mapping[str, str]:
    """For names of uploads as an export writes them: the same with the name of the file that is there.

    Django, which stores the uploads, replaces spaces by underscores and removes parentheses and the like; URLs encode
    accents. Names whose files are there as written are left out, and so are those that fit several files.

    file: the export, near which the images are, unless `images` is their folder.
    """
    uploads = {name: unquote(decode_url(name)) for name in dict.fromkeys(written)}
    uploads = {name: path for name, path in uploads.items() if name_before_upload(path) != path}
    if not uploads:
        return {}
    folders = folders_near(file) if images is None else [images]
    there = {name for folder in folders for name in names_in(folder) if name.lower().endswith(SUFFIXES)}
    renamed: dict[str, set[str]] = {}
    for name in sorted(there):
        for form in normal_forms(name):
            renamed.setdefault(_stored_name(form), set()).add(name)
    count = Counter(name_before_upload(path) for path in uploads.values())
    found = {}
    for name, path in uploads.items():
        before = name_before_upload(path)
        as_written = {posixpath.basename(name), name_before_upload(name)}
        if as_written & there:
            continue
        candidates = {posixpath.basename(path), before} & there or renamed.get(before, set())
        if len(candidates) == 1 and count[before] == 1:
            (original,) = candidates
            replaced = original if original == posixpath.basename(path) else before
            found[name] = path.removesuffix(replaced) + original
    return found


def _stored_name(name: str) -> str:
    """The name under which Django stores a file (`get_valid_filename`)."""
    return re.sub(r"[^-\w.]", "", name.strip().replace(" ", "_"))
