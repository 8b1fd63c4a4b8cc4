"""The best checkpoint of a run by its AP on the validation set, and when to stop waiting for a better one."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from socodet.errors import InputError
from socodet.runtime.notices import log_note
from socodet.training.run_folder import RunFolder

if TYPE_CHECKING:
    from torch import Tensor

METRIC = "box_AP"


@dataclass
class BestCheckpoint:
    """The highest AP so far. On a tie the newer weights are kept, because they were trained for longer."""

    run: RunFolder
    patience: int | None = None
    """Evaluations in a row without a higher AP after which the run ends; None for never."""
    step: int | None = None
    ap: float | None = None
    """AP of the weights on disk; None before the first evaluation."""
    highest: float | None = None
    """Highest AP of all evaluations, including those whose weights are not on disk."""
    waited: int = 0
    """Evaluations since AP last reached a new maximum."""

    @classmethod
    def of_run(cls, run: RunFolder, patience: int | None, until: int) -> "BestCheckpoint":
        """Restores the state from the log of a run, up to the evaluation of step `until`; only weights that were
        written count. A step that was scored twice counts once.

        If the run was killed after an evaluation but before that step's checkpoint, the weights on disk belong to a
        later step; the next evaluation then replaces them.
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
                log_note(f"{run.best}: not a readable checkpoint; the next evaluation writes another")
                kept = None
            best.step = None if kept is None else kept["step"]
            best.ap = None if best.step is None else ap_of.get(best.step)
        return best

    @property
    def exhausted(self) -> bool:
        """Whether `patience` evaluations in a row brought no higher AP."""
        return self.patience is not None and self.waited >= self.patience

    def add(
        self, step: int, total: int, scores: Mapping[str, float | None], weights: Callable[[], "dict[str, Tensor]"]
    ) -> None:
        """Records an evaluation, and saves the weights if no earlier one was better."""
        kept = self.step, self.ap
        if self._note(step, scores.get(METRIC)):
            state: dict[str, Any] = {"step": step, "total_steps": total, "detector": weights()}
            try:
                self.run.save_best(state)
            except OSError as error:
                log_note(f"the best checkpoint, step {step}, cannot be written ({error}); training continues")
                self.step, self.ap = kept  # still those on disk, so that later, better weights are saved

    def _note(self, step: int, ap: float | None) -> bool:
        """Whether `ap` is at least that of the weights on disk."""
        higher = ap is not None and (self.highest is None or ap > self.highest)
        self.waited = 0 if higher else self.waited + 1
        self.highest = ap if higher else self.highest
        if ap is None or (self.ap is not None and ap < self.ap):
            return False
        self.step, self.ap = step, ap
        return True
