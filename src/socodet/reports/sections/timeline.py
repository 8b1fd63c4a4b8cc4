"""A run over time: what it logged, and when it paused and was resumed."""

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from matplotlib.figure import Figure

from socodet.reports.charts import LETTERS, chart, cycle, light_and_dark
from socodet.reports.page import Gallery, Section, Table
from socodet.reports.runs import RunRecord
from socodet.reports.theme import LIGHT, Theme
from socodet.runtime.counted import counted
from socodet.training.log import BEGAN, EVENTS
from socodet.training.run_folder import RunFolder

FIELDS = {"loss": "loss", "lr": "learning rate", "effective_rank": "effective rank", "box_AP": "box AP"}
"""Fields of the log that are drawn, if they were logged, and their names."""
UNITS = ((2 * 86400, 86400, "days"), (2 * 3600, 3600, "hours"), (120, 60, "minutes"), (0, 1, "seconds"))
"""Number of seconds from which a unit is used, seconds per unit, and the unit's name."""
OPEN = 6
"""Tables with more calls are folded."""
YEAR_9999 = 253_370_764_800
"""The beginning of that year in seconds; later times cannot be written as dates."""


@dataclass(frozen=True)
class Session:
    """One call of the command: from its start, or the resumption of the run, to its end or interruption."""

    began: float
    """In seconds since 1970, like all times here."""
    logged: Mapping[int, float]
    """Step → time when it was logged; at least one."""

    @property
    def ended(self) -> float:
        """The time of its last log line."""
        return max(self.logged.values())


def timeline_sections(records: Sequence[RunRecord]) -> list[Section]:
    """One section with a chart per run; none if no run kept its event files."""
    figures: list[Gallery | Table] = []
    for record in records:
        calls = sessions(record.folder)
        if not calls:
            continue
        title = f"{record.name} over time" if len(records) > 1 else "Over time"
        pauses = len(calls) - 1
        often = f"paused {counted(pauses, 'time')}" if pauses else "without a pause"
        figures.append(
            Gallery(
                light_and_dark(partial(timeline_figure, record, calls), title, "", f"{title}: {often}"), size="large"
            )
        )
        header = ("Call", "Started (UTC)", "Steps", "Time running", "Pause before")
        folded = f"{len(calls)} calls of {record.name}" if len(calls) > OPEN else ""
        figures.append(Table(header, _rows(calls), caption=f"{record.name}: {often}", folded=folded))
    text = "Grey: pauses until the run was resumed, which repeats the steps after the last checkpoint."
    return [Section("Timeline", text, figures)] if figures else []


def timeline_figure(record: RunRecord, calls: Sequence[Session], *, theme: Theme = LIGHT) -> Figure | None:
    """The fields of the log, stacked vertically, over the time since the run began; pauses are grey."""
    when = {step: at for call in calls for step, at in call.logged.items()}  # of a repeated step, the last one counts
    began, ended = calls[0].began, max(call.ended for call in calls)
    seconds, unit = next((size, name) for least, size, name in UNITS if ended - began >= least)
    points = {
        field: [
            (when[line["step"]], line[field])
            for line in record.lines
            if line["step"] in when and isinstance(line.get(field), int | float) and math.isfinite(line[field])
        ]
        for field in FIELDS
    }
    drawn = {field: values for field, values in points.items() if values}
    if not drawn:
        return None
    figure, panels = chart(theme, unit, len(drawn))
    for axes, (field, values), colour in zip(panels, drawn.items(), cycle(theme, len(drawn)), strict=True):
        for call in calls:  # no line across a pause
            part = [((at - began) / seconds, value) for at, value in values if call.began <= at <= call.ended]
            hours, heights = [at for at, _ in part], [value for _, value in part]
            axes.plot(hours, heights, color=colour, linewidth=1.6, marker="o" * (len(part) < 3))
        axes.set_title(FIELDS[field], color=theme.ink, size=LETTERS, loc="left")
        for before, after in itertools.pairwise(calls):
            axes.axvspan(*((at - began) / seconds for at in (before.ended, after.began)), color=theme.grid, zorder=0)
    return figure


def _rows(calls: Sequence[Session]) -> list[tuple[str, ...]]:
    pauses = ["", *(_span(after.began - before.ended) for before, after in itertools.pairwise(calls))]
    return [
        (
            str(number),
            datetime.fromtimestamp(call.began, UTC).strftime("%Y-%m-%d %H:%M:%S"),
            f"{min(call.logged):,} to {max(call.logged):,}",
            _span(call.ended - call.began),
            pause,
        )
        for number, (call, pause) in enumerate(zip(calls, pauses, strict=True), 1)
    ]


def _span(seconds: float) -> str:
    """`3.2 hours`."""
    size, unit = next((size, name) for least, size, name in UNITS if seconds >= least or not least)
    return f"{max(seconds, 0) / size:.3g} {unit}"


def sessions(run: RunFolder) -> list[Session]:
    """The run's calls in order of time. Damaged or foreign files count as far as they can be read, without an error."""
    found = []
    for file in run.tensorboard.glob(f"{EVENTS}.*") if run.tensorboard.is_dir() else ():
        name, logged = BEGAN.match(file.name), dict(_logged(file))
        if name and logged and float(name[1]) < YEAR_9999:
            found.append(Session(min(float(name[1]), *logged.values()), logged))
    return sorted(found, key=lambda session: session.began)


def _logged(file: Path) -> Iterator[tuple[int, float]]:
    """Each step and the time when its line was written."""
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

    try:
        for event in EventFileLoader(str(file)).Load():
            if event.HasField("summary") and 0 <= event.wall_time < YEAR_9999:  # other values, and NaN, are damage
                yield event.step, event.wall_time
    except Exception:
        return
