"""Reports what was loaded into a network, what is unchanged, and what is left over."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from socodet.runtime.shown import Shown, ShownTable

OWN_MODULES = ("extra_blocks", "norm")
"""Parts of a pretrained module that are never pretrained: P6 and P7, and the norm after C4's fifth block."""


@dataclass(frozen=True, repr=False)
class LoadReport(Shown):
    """Which tensors of a network were loaded and which are unchanged; `str` lists them by module.

    `loaded` and `fresh` have the network's tensor names. Batch norm's counters are in neither if an older file lacks
    them.
    """

    source: str
    format: str
    """The source's naming format: `a run`, `the public code`, `a detector`, or `a backbone` and its prefix."""
    loaded: tuple[str, ...]
    fresh: tuple[str, ...]
    left_over: dict[str, str] = field(default_factory=dict)
    """The source's tensors that were not loaded, each with a description of its module."""
    set_aside: frozenset[str] = frozenset()
    """The part of `left_over` that was skipped because only the backbone was requested."""

    @property
    def loaded_modules(self) -> dict[str, int]:
        """Number of loaded tensors by module."""
        return _counts(map(_module, self.loaded))

    @property
    def fresh_modules(self) -> dict[str, int]:
        """Number of unchanged tensors, by module."""
        return _counts(map(_module, self.fresh))

    @property
    def left_over_modules(self) -> dict[str, int]:
        """Number of the source's tensors that were not loaded, by description of their module."""
        return _counts(self.left_over.values())

    def __repr__(self) -> str:
        counts = f"{len(self.loaded)} loaded, {len(self.fresh)} fresh, {len(self.left_over)} left over"
        return f"<LoadReport of {self.source}: {counts}>"

    def __str__(self) -> str:
        return "\n".join([f"{self.source} ({self.format}):", *(f"  {what:<7} {words}" for what, words in self._rows())])

    def shown(self) -> list[ShownTable]:
        """The modules that were loaded, are fresh, or have no place."""
        return [ShownTable(self._rows())]

    def _rows(self) -> list[tuple[str, str]]:
        parts = [("loaded", self.loaded_modules), ("fresh", self.fresh_modules)]
        asked = [name in self.set_aside for name in self.left_over]
        for what, as_asked in (("left over", False), ("left out, as only the backbone is wanted:", True)):
            of_these = [module for module, one in zip(self.left_over.values(), asked, strict=True) if one is as_asked]
            if of_these:
                parts.append((what, _counts(of_these)))
        return [
            (what, ", ".join(f"{module} ({count} tensors)" for module, count in modules.items()) or "nothing")
            for what, modules in parts
        ]


def _counts(modules: Iterable[str]) -> dict[str, int]:
    return dict(Counter(modules))


def _module(name: str) -> str:
    """The module of a network's tensor, by the network's own name."""
    first, *rest = name.removeprefix("detr.").removeprefix("online.").removeprefix("encoder.").split(".")
    if first in ("box_head", "projector", "predictor"):
        return first
    return ".".join([first, *rest[: 2 if len(rest) > 1 and rest[1] in OWN_MODULES else 1]])
