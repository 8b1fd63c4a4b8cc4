"""An ablation's folder: whose it is, where each row keeps what, and the proposals that all of them share.

DIR/ablation.json               what was asked, so that other rows or figures never end up in the same table
DIR/proposals[-random].parquet  the boxes that all rows share
DIR/ROW/seed-S/                 a run's folder
DIR/ROW/seed-S.json             how that run ended: its recall, or where it diverged
DIR/ROW/seed-S-transfer/        whatever fine-tuning writes
DIR/ROW/seed-S-transfer.json    how the fine-tuning ended: its figures, or where it diverged
DIR/FAMILY.csv .md .png .svg    the table and its figure
"""

import dataclasses
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from socodet.errors import InputError
from socodet.images.source import ImageSource
from socodet.pretraining.preparation import digest_names
from socodet.proposals.make_table import propose
from socodet.proposals.table import ProposalTable
from socodet.runtime.files import first_difference, read_note, refuse_foreign_folder, refuse_other_note, write_note
from socodet.studies.ablation.budget import PAPER, Budget, FamilyRow
from socodet.training.run_folder import RunFolder

NOTE = "ablation.json"
FINETUNE = "finetune"
"""In the note, what fine-tuning was asked for; it may come later than the rest."""


@dataclass(frozen=True)
class RowFolder:
    """Where a row with a seed keeps what it writes."""

    path: Path
    """The row's folder, of all seeds."""
    seed: int

    @property
    def run(self) -> RunFolder:
        """Its pretraining run."""
        return RunFolder(self.path / f"seed-{self.seed}")

    @property
    def record(self) -> Path:
        """How pretraining ended."""
        return self.path / f"seed-{self.seed}.json"

    @property
    def transfer(self) -> RunFolder:
        """Where fine-tuning writes."""
        return RunFolder(self.path / f"seed-{self.seed}-transfer")

    @property
    def transfer_record(self) -> Path:
        """How fine-tuning ended."""
        return self.path / f"seed-{self.seed}-transfer.json"


def seeds_on_disk(row: Path) -> set[int]:
    """Those with which a row was run to an end."""
    return {int(path.stem.removeprefix("seed-")) for path in row.glob("seed-*.json") if path.stem[5:].isdigit()}


def prepare_folder(
    folder: Path,
    family: str,
    budget: Budget,
    source: ImageSource,
    proposals: str | Path | None,
    finetune: Mapping[str, Any] | None,
    *,
    overwrite: bool,
) -> dict[str, Any] | None:
    """Makes the folder, or finds in it the ablation that is asked for; returns what its fine-tuning is, if any.

    `finetune` describes the one that is asked for now. InputError when the folder holds something else, or figures of
    another fine-tuning.
    """
    cost = dataclasses.asdict(budget)
    del cost["seed"]  # more may come
    asked: dict[str, Any] = {
        "family": family,
        "budget": cost,
        "images": {"count": len(source), "names_sha256": digest_names(source)},
        "proposals": None if proposals is None else str(Path(proposals).resolve()),
    }
    note = folder / NOTE
    refuse_foreign_folder(folder, note, "an ablation")
    finetune = None if finetune is None else json.loads(json.dumps(finetune))  # as it is read again
    there = read_note(note)
    if there is not None and overwrite:
        _clear(folder, there["family"])
    elif there is not None:
        noted = there.pop(FINETUNE, None)
        refuse_other_note(folder, asked, there, "an ablation")
        if finetune is None:
            finetune = noted
        elif noted is not None and any(folder.glob("*/seed-*-transfer*")):
            difference = first_difference(finetune, noted)
            if difference:
                raise InputError(
                    f"{folder}: its rows are fine-tuned otherwise: {difference}; give another --output, or remove "
                    f"{folder}/*/seed-*-transfer* to lose those figures and keep the pretrained rows"
                )
    write_note(note, asked if finetune is None else {**asked, FINETUNE: finetune})
    return None if finetune is None else dict(finetune)


def _clear(folder: Path, family: str) -> None:
    """Removes what an ablation writes, and nothing else."""
    for path in folder.iterdir():
        if path.is_dir() and path.name.startswith((f"{family}_", ".proposals")):
            shutil.rmtree(path)
        elif path.stem == family or path.name.startswith("proposals"):
            path.unlink()


def shared_tables(
    folder: Path, rows: Sequence[FamilyRow], source: ImageSource, given: str | Path | None, show_progress: bool
) -> dict[str, Path]:
    """A proposal table for each method that some row uses; each is made once, for all of them."""
    tables: dict[str, Path] = {}
    settings = {row.recipe.proposals.method: row.recipe.proposals for row in rows}
    for method, wanted in {PAPER.proposals.method: PAPER.proposals, **settings}.items():
        usual = method == PAPER.proposals.method
        if usual and given is not None:
            tables[method] = Path(given)
            ProposalTable.read(given).check_images(source)
            continue
        tables[method] = folder / ("proposals.parquet" if usual else f"proposals-{method}.parquet")
        if not tables[method].exists():
            propose(source, tables[method], settings=wanted, show_progress=show_progress)
    return tables
