"""The best checkpoint of a run by its AP on the validation set, and when to stop waiting for a better one."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from socodet.errors import InputError
from socodet.runtime.notices import say
from socodet.training.run_folder import RunFolder

METRIC = "box_AP"


@dataclass
class BestCheckpoint:
    """The highest AP so far. Of equal ones the newest weights are kept, because they were trained for longer."""

    run: RunFolder
    patience: int | None = None
    """Evaluations in a row without a higher AP after which the run ends; None for never."""
    step: int | None = None
    ap: float | None = None
    """Of the weights on disk; None before the first evaluation."""
    highest: float | None = None
    """Of all evaluations, including those whose weights are not on disk."""
    waited: int = 0
    """Evaluations since the last that was higher than all before."""

    @classmethod
    def of_run(cls, run: RunFolder, patience: int | None, until: int) -> "BestCheckpoint":
        """Restores it from the log of a run whose evaluations up to step `until` are done; only weights that were
        written count. A step that was scored twice counts once.

        The weights on disk may be of a later step, if the run was killed before the checkpoint of that step: the next
        evaluation then replaces them.
        """
        best, ap_of = cls(run, patience), {}
        for line in run.log_lines() if until else ():
            if METRIC in line and line["step"] <= until:
                ap_of[line["step"]] = line[METRIC]
        for step, ap in ap_of.items():
            best._note(step, ap)
        if best.step is not None:
            try:
                kept = run.load_best()
            except InputError:
                say(f"{run.best}: not a readable checkpoint; the next evaluation writes another")
                kept = None
            best.step = None if kept is None else kept["step"]
            best.ap = None if best.step is None else ap_of.get(best.step)
        return best

    @property
    def exhausted(self) -> bool:
        """Whether there were `patience` evaluations without a higher AP."""
        return self.patience is not None and self.waited >= self.patience

    def add(
        self, step: int, total: int, scores: Mapping[str, float | None], weights: Callable[[], dict[str, Tensor]]
    ) -> None:
        """Notes an evaluation, and keeps the weights if none before was better."""
        kept = self.step, self.ap
        if self._note(step, scores.get(METRIC)):
            state: dict[str, Any] = {"step": step, "total_steps": total, "detector": weights()}
            try:
                self.run.save_best(state)
            except OSError as error:
                say(f"the best checkpoint, step {step}, cannot be written ({error}); training continues")
                self.step, self.ap = kept  # those on disk: later weights that are better are kept

    def _note(self, step: int, ap: float | None) -> bool:
        """Whether `ap` is at least that of the weights on disk."""
        higher = ap is not None and (self.highest is None or ap > self.highest)
        self.waited = 0 if higher else self.waited + 1
        self.highest = ap if higher else self.highest
        if ap is None or (self.ap is not None and ap < self.ap):
            return False
        self.step, self.ap = step, ap
        return True
