"""The licences of socodet and of everything that it needs to run."""

import re
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution

from packaging.requirements import Requirement

UNKNOWN = "not in its metadata"


@dataclass(frozen=True)
class Licence:
    """Of one installed package."""

    package: str
    version: str
    licence: str


def licences(package: str = "socodet") -> list[Licence]:
    """Of a package and all that it requires, without extras, sorted by name."""
    found: dict[str, Licence] = {}
    left = [package]
    while left:
        name = re.sub(r"[-_.]+", "-", left.pop()).lower()
        if name in found:
            continue
        try:
            there = distribution(name)
        except PackageNotFoundError:  # required on other systems alone
            continue
        found[name] = Licence(name, there.version, _stated(there.metadata))
        wanted = [Requirement(one) for one in there.requires or []]
        left += [one.name for one in wanted if one.marker is None or one.marker.evaluate({"extra": ""})]
    return [found[name] for name in sorted(found)]


def _stated(metadata: object) -> str:
    """As an expression, else by the classifiers, else as text of one line."""
    get_all = metadata.get_all  # type: ignore[attr-defined]
    classifiers = [one for one in get_all("Classifier", []) if one.startswith("License ::")]
    text = [line.strip() for line in (get_all("License") or [""])[0].splitlines() if line.strip()]
    by_classifier = "; ".join(one.split(" :: ")[-1] for one in classifiers)
    return str((get_all("License-Expression") or [None])[0] or by_classifier or (text or [UNKNOWN])[0][:80])
