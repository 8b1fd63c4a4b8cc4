"""The licences that `socodet doctor --licences` prints, and the requirements of an installed package."""

import importlib.metadata
import json
import re
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from socodet.errors import InputError

if TYPE_CHECKING:
    from packaging.requirements import Requirement


@dataclass(frozen=True)
class Licence:
    """The licence of one installed package."""

    package: str
    version: str
    licence: str


def print_licences(as_json: bool) -> None:
    """Prints the licences of socodet and of everything it requires, as lines or as JSON."""
    found = _licences()
    if as_json:
        print(json.dumps([asdict(one) for one in found], indent=2))
        return
    width = max(len(f"{one.package} {one.version}") for one in found)
    for one in found:
        print(f"{one.package + ' ' + one.version:<{width}}  {one.licence}")


def _licences() -> list[Licence]:
    """The licences of socodet and of everything it requires, without extras, sorted by name."""
    found: dict[str, Licence] = {}
    left = ["socodet"]
    while left:
        name = re.sub(r"[-_.]+", "-", left.pop()).lower()
        if name in found:
            continue
        try:
            there = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:  # required only on other systems
            continue
        found[name] = Licence(name, there.version, _licence_in(there.metadata))
        left += [one.name for one in required(name)]
    if not found:
        raise InputError("doctor: socodet is not installed, so its requirements are unknown; pip install it")
    return [found[name] for name in sorted(found)]


def required(name: str) -> list["Requirement"]:
    """What an installed package requires on this system, without extras; nothing if it is not installed."""
    from packaging.requirements import Requirement

    try:
        wanted = [Requirement(one) for one in importlib.metadata.requires(name) or []]
    except importlib.metadata.PackageNotFoundError:
        return []
    return [one for one in wanted if one.marker is None or one.marker.evaluate({"extra": ""})]


def _licence_in(metadata: object) -> str:
    """The licence expression, otherwise the classifiers, otherwise the licence text in one line."""
    get_all = metadata.get_all  # type: ignore[attr-defined]
    classifiers = [one for one in get_all("Classifier", []) if one.startswith("License ::")]
    text = [line.strip() for line in (get_all("License") or [""])[0].splitlines() if line.strip()]
    by_classifier = "; ".join(one.split(" :: ")[-1] for one in classifiers)
    return str(
        (get_all("License-Expression") or [None])[0] or by_classifier or (text or ["not in its metadata"])[0][:80]
    )
