"""How long the rest of a study takes, from the jobs of each kind that this call ran from start to end."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from statistics import mean

from socodet.runtime.progress import duration


class TimeLeft:
    """Adds up the jobs that remain, each as long as those of its kind were."""

    def __init__(self) -> None:
        self._seconds: dict[str, list[float]] = defaultdict(list)

    def took(self, kind: str, seconds: float) -> None:
        """Notes a job of that kind."""
        self._seconds[kind].append(seconds)

    def line(self, remaining: Sequence[str]) -> str | None:
        """What to say when jobs of these kinds remain; None where nothing can be said."""
        known = [kind for kind in remaining if kind in self._seconds]
        if not known:
            return None
        text = f"about {duration(sum(mean(self._seconds[kind]) for kind in known))} left for {_counted(known)}"
        others = [kind for kind in remaining if kind not in self._seconds]
        return text if not others else f"{text}; {_counted(others)} not counted"


def _counted(kinds: Sequence[str]) -> str:
    return " and ".join(f"{count:,} {kind}{'s' if count > 1 else ''}" for kind, count in Counter(kinds).items())
