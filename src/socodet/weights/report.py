"""What was loaded into a network, what is as it was, and what is left over."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

OWN_MODULES = ("extra_blocks", "norm")
"""Parts inside a pretrained module that are never pretrained: P6 and P7, and the norm behind C4's fifth block."""


@dataclass(frozen=True)
class LoadReport:
    """Which tensors of a network came from pretraining, and which are still what they were.

    `loaded` and `fresh` are the network's names. Counters of batch norm that an older file lacks are in neither.
    """

    source: str
    format: str
    """Whose names the source has: `a run`, `the public code`, `a detector` or `a backbone`."""
    loaded: tuple[str, ...]
    fresh: tuple[str, ...]
    left_over: dict[str, str] = field(default_factory=dict)
    """The source's tensors that have no place in the network, and what they belong to in words."""

    @property
    def loaded_modules(self) -> dict[str, int]:
        """Modules with pretrained tensors, and how many."""
        return _counts(map(_module, self.loaded))

    @property
    def fresh_modules(self) -> dict[str, int]:
        """Modules with tensors left as they were, and how many."""
        return _counts(map(_module, self.fresh))

    @property
    def left_over_modules(self) -> dict[str, int]:
        """What of the source has no place in the network, in words, and how many tensors."""
        return _counts(self.left_over.values())

    def __str__(self) -> str:
        lines = [f"{self.source} ({self.format}):"]
        parts = [("loaded", self.loaded_modules), ("fresh", self.fresh_modules)]
        if self.left_over:
            parts.append(("left over", self.left_over_modules))
        for what, modules in parts:
            words = ", ".join(f"{module} ({count} tensors)" for module, count in modules.items())
            lines.append(f"  {what:<7} {words or 'nothing'}")
        return "\n".join(lines)


def _counts(modules: Iterable[str]) -> dict[str, int]:
    return dict(Counter(modules))


def _module(name: str) -> str:
    """The module of a network's tensor, by the network's own name."""
    first, *rest = name.removeprefix("online.").removeprefix("encoder.").split(".")
    if first in ("box_head", "projector", "predictor"):
        return first
    return ".".join([first, *rest[: 2 if len(rest) > 1 and rest[1] in OWN_MODULES else 1]])
