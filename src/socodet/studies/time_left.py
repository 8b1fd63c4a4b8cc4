"""Estimates how long the rest of a study takes from the jobs of each kind that this call ran from start to end."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from statistics import mean

from socodet.runtime.progress import duration


class TimeLeft:
    """Adds up the remaining jobs, each taken to last as long as earlier jobs of its kind."""

    def __init__(self) -> None:
        self._seconds: dict[str, list[float]] = defaultdict(list)

    def took(self, kind: str, seconds: float) -> None:
        """Notes how long a job of this kind took."""
        self._seconds[kind].append(seconds)

    def line(self, remaining: Sequence[str]) -> str | None:
        """The estimate when jobs of these kinds remain; None if nothing is known yet."""
        known = [kind for kind in remaining if kind in self._seconds]
        if not known:
            return None
        text = f"about {duration(sum(mean(self._seconds[kind]) for kind in known))} left for {_counted(known)}"
        others = [kind for kind in remaining if kind not in self._seconds]
        return text if not others else f"{text}; {_counted(others)} not counted"


def _counted(kinds: Sequence[str]) -> str:
    return " and ".join(f"{count:,} {kind}{'s' if count > 1 else ''}" for kind, count in Counter(kinds).items())
