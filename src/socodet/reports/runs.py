"""What a page says of runs by their descriptions and logs alone: the settings, where they differ, how it came out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from socodet.reports.page import Details, Table

HEADLINES = {
    "pretrain": {
        "recipe.name": "Recipe",
        "recipe.model.architecture": "Architecture",
        "recipe.model.backbone": "Backbone",
        "recipe.sample.views": "Views",
        "recipe.proposals.method": "Proposals",
        "images.count": "Images",
        "recipe.training.epochs": "Epochs",
        "recipe.training.batch_size": "Batch size",
        "recipe.training.base_lr": "Learning rate at batch 256",
        "recipe.training.target_momentum": "Target momentum at first",
        "recipe.training.seed": "Seed",
        "start.from": "First weights",
    },
    "finetune": {
        "recipe.settings.detector": "Detector",
        "recipe.model.backbone": "Backbone",
        "start.from": "First weights",
        "data.images": "Pictures",
        "recipe.settings.schedule": "Schedule",
        "recipe.schedule.iterations": "Steps",
        "recipe.schedule.batch_size": "Batch size",
        "recipe.schedule.lr": "Learning rate",
        "recipe.settings.seed": "Seed",
    },
}
"""Fields always shown, under plain names."""
UNSHOWN = ("versions", "problems", "data.categories")
"""Not settings, or too long for a table."""
NOTHING = "–"


@dataclass(frozen=True)
class RunRecord:
    """A run as its folder tells it, without its weights."""

    name: str
    """Unlike that of any other run on the page."""
    path: Path
    description: Mapping[str, Any]
    """run.json."""
    lines: Sequence[Mapping[str, Any]]
    """log.jsonl."""

    @property
    def kind(self) -> Literal["pretrain", "finetune"]:
        """Which command wrote it."""
        return "finetune" if "settings" in self.description["recipe"] else "pretrain"

    @property
    def views(self) -> int:
        """Views of a pretraining run's sample."""
        return len(self.description["recipe"]["sample"]["views"])

    @property
    def embedding_size(self) -> int:
        """D of a pretraining run's embeddings."""
        size: int = self.description["recipe"]["model"]["embedding_size"]
        return size

    def last(self, name: str) -> float | None:
        """The newest value of a field of the log."""
        values = [line[name] for line in self.lines if line.get(name) is not None]
        return values[-1] if values else None


def names_of(paths: Sequence[Path]) -> list[str]:
    """A short name for each folder, none twice: as many of a path's last parts as it takes."""
    resolved = [path.resolve().parts for path in paths]
    names: list[str] = []
    for parts in resolved:
        length = next(
            (n for n in range(1, len(parts) + 1) if sum(other[-n:] == parts[-n:] for other in resolved) == 1),
            len(parts),
        )
        names.append("/".join(parts[-length:]))
    return names


def settings_tables(runs: Sequence[RunRecord]) -> list[Table | Details]:
    """Of runs of one kind: the main settings and every other one in which they differ; then every setting, folded."""
    columns = [_flat(run.description) for run in runs]
    header = ("Setting", *(run.name for run in runs))
    titles = HEADLINES[runs[0].kind]
    every = [key for key in dict.fromkeys(key for column in columns for key in column) if not key.startswith(UNSHOWN)]
    differing = [key for key in every if len({column.get(key, NOTHING) for column in columns}) > 1]
    main = [(titles[key], *(column.get(key, NOTHING) for column in columns)) for key in titles if key in every]
    others = [
        (_short(key), *(column.get(key, NOTHING) for column in columns)) for key in differing if key not in titles
    ]
    whole = [(_short(key), *(column.get(key, NOTHING) for column in columns)) for key in every]
    tables: list[Table | Details] = [Table(header, main, marked=_differing(main))]
    if others:
        tables.append(Details(f"Other settings in which they differ: {len(others)}", [Table(header, others)]))
    return [*tables, Details("Every setting", [Table(header, whole, marked=_differing(whole))])]


def _differing(rows: Sequence[Sequence[str]]) -> frozenset[int]:
    return frozenset(place for place, (_, *cells) in enumerate(rows) if len(set(cells)) > 1)


def _short(key: str) -> str:
    return key.removeprefix("recipe.")


def _flat(value: Any, prefix: str = "") -> dict[str, str]:
    """Nested JSON as dotted names and words; `sample.views` has beside its parts a line of its own."""
    if isinstance(value, Mapping):
        flat: dict[str, str] = {}
        for key, item in value.items():
            name = f"{prefix}.{key}" if prefix else str(key)
            if name == "recipe.sample.views":
                flat[name] = ", ".join(f"{view['window']} {view['size']}" for view in item)
            flat |= _flat(item, name)
        return flat
    if isinstance(value, list) and value and isinstance(value[0], Mapping):
        return _flat({str(place): item for place, item in enumerate(value)}, prefix)
    return {prefix: _word(value[:10] if prefix.endswith("sha256") else value)}


def _word(value: Any) -> str:
    if value is None:
        return NOTHING
    if isinstance(value, list):
        return " ".join(map(_word, value))
    if isinstance(value, float):
        return f"{value:g}"
    return str(value)


def outcome_table(runs: Sequence[RunRecord]) -> Table:
    """How far the runs of one kind came, and the newest figures of their logs, a column a run."""
    rows = _pretrain_rows(runs) if runs[0].kind == "pretrain" else _finetune_rows(runs)
    shown = [row for row in rows if any(cell != NOTHING for cell in row[1:])]
    return Table(("Newest figures", *(run.name for run in runs)), shown)


def _pretrain_rows(runs: Sequence[RunRecord]) -> list[tuple[str, ...]]:
    even = [run.embedding_size**-0.5 for run in runs]
    spreads = [run.last("embedding_std") for run in runs]
    relative = [None if spread is None else spread / full for spread, full in zip(spreads, even, strict=True)]
    return [
        *_progress_rows(runs),
        ("Loss, Eq. 6", *(_figure(run.last("loss"), ".3f") for run in runs)),
        ("  at perfect agreement", *(_figure(-4 * (run.views - 1), ".0f") for run in runs)),
        ("Spread of the embeddings, of an even one", *(_figure(value, ".0%") for value in relative)),
        ("Effective rank", *(_figure(run.last("effective_rank"), ".1f") for run in runs)),
        *_speed_rows(runs),
        ("kNN accuracy, mean over kinds", *(_figure(run.last("probe_knn_balanced"), ".1%") for run in runs)),
        ("Linear accuracy, mean over kinds", *(_figure(run.last("probe_linear_balanced"), ".1%") for run in runs)),
        ("Annotated object found in another view", *(_figure(run.last("probe_recall_at_1"), ".1%") for run in runs)),
    ]


def _finetune_rows(runs: Sequence[RunRecord]) -> list[tuple[str, ...]]:
    scores = dict.fromkeys(
        key for run in runs for line in run.lines for key in line if key.startswith(("box_", "mask_"))
    )
    return [
        *_progress_rows(runs),
        ("Loss", *(_figure(run.last("loss"), ".3f") for run in runs)),
        *((score.replace("_", " "), *(_figure(run.last(score), ".2f") for run in runs)) for score in scores),
        *_speed_rows(runs),
    ]


def _progress_rows(runs: Sequence[RunRecord]) -> list[tuple[str, ...]]:
    return [
        ("Steps", *(_figure(run.last("step"), ".0f") for run in runs)),
        ("Epochs", *(_figure(run.last("epoch"), ".4g") for run in runs)),
    ]


def _speed_rows(runs: Sequence[RunRecord]) -> list[tuple[str, ...]]:
    return [
        ("Images a second", *(_figure(run.last("images_per_second"), ".3g") for run in runs)),
        ("Waiting for data", *(_figure(run.last("data_wait"), ".0%") for run in runs)),
    ]


def _figure(value: float | None, form: str) -> str:
    return NOTHING if value is None else format(value, form).replace("-", "−")
