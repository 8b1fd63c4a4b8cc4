"""The settings of runs, their differences, and the newest values of their logs."""

from collections.abc import Mapping, Sequence
from typing import Any

from socodet.models.objective import build_objective
from socodet.models.settings import ObjectiveSettings
from socodet.reports.page import Section, Table
from socodet.reports.runs import RunRecord
from socodet.runtime.counted import rounded

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
        "recipe.training.target_momentum": "Target momentum at the start",
        "recipe.training.seed": "Seed",
        "start.from": "Starting weights",
    },
    "finetune": {
        "recipe.settings.detector": "Detector",
        "recipe.model.backbone": "Backbone",
        "start.from": "Starting weights",
        "data.images": "Images",
        "recipe.settings.schedule": "Schedule",
        "recipe.schedule.iterations": "Steps",
        "recipe.schedule.batch_size": "Batch size",
        "recipe.schedule.lr": "Learning rate",
        "recipe.settings.seed": "Seed",
    },
}
"""Settings that are always shown, and their names."""
HIDDEN = ("versions", "command", "problems", "data.categories")
"""Entries that are not settings, or are too long for a table."""
COUNTS = ("images.count", "data.images", "recipe.schedule.iterations", "recipe.training.batch_size")
"""Settings shown with thousands separators."""
PROGRESS = {"step": ("Steps", ",.0f"), "epoch": ("Epochs", None), "loss": ("Loss", ".3f")}
SPEED = {"images_per_second": ("Images per second", None), "data_wait": ("Waiting for data", ".0%")}
PRETRAINED = {
    **SPEED,
    "probe_knn_balanced": ("kNN accuracy, mean over classes", ".1%"),
    "probe_linear_balanced": ("Linear accuracy, mean over classes", ".1%"),
    "probe_recall_at_1": ("Annotated object found in another view", ".1%"),
}
SCORES = ("box_", "mask_")
NOTHING = "–"


def recipe_section(runs: Sequence[RunRecord], heading: str) -> Section:
    """The newest values and the settings of one command's runs."""
    text = "Settings in colour differ between the runs." if len(runs) > 1 else ""
    return Section(f"{heading}: the recipe", text, [outcome_table(runs), *settings_tables(runs)])


def settings_tables(runs: Sequence[RunRecord]) -> list[Table]:
    """Tables for one command's runs: main settings, other settings that differ (folded), and all settings (folded)."""
    columns = [_flat(run.description) for run in runs]
    header = ("Setting", *(run.name for run in runs))
    titles = HEADLINES[runs[0].kind]
    every = [key for key in dict.fromkeys(key for column in columns for key in column) if not key.startswith(HIDDEN)]
    differing = [key for key in every if len({column.get(key, NOTHING) for column in columns}) > 1]
    main = [(titles[key], *(column.get(key, NOTHING) for column in columns)) for key in titles if key in every]
    others = [
        (_short(key), *(column.get(key, NOTHING) for column in columns)) for key in differing if key not in titles
    ]
    whole = [(_short(key), *(column.get(key, NOTHING) for column in columns)) for key in every]
    tables = [Table(header, main, marked=_differing(main))]
    if others:
        tables.append(Table(header, others, folded=f"Other settings that differ: {len(others)}"))
    return [*tables, Table(header, whole, marked=_differing(whole), folded="All settings")]


def _differing(rows: Sequence[Sequence[str]]) -> frozenset[int]:
    return frozenset(place for place, (_, *cells) in enumerate(rows) if len(set(cells)) > 1)


def _short(key: str) -> str:
    return key.removeprefix("recipe.")


def _flat(value: Any, prefix: str = "") -> dict[str, str]:
    """Nested JSON as dotted names and text; `sample.views` also has a combined entry."""
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
    if prefix in COUNTS and isinstance(value, int):
        return {prefix: f"{value:,}"}
    return {prefix: _text(value[:10] if prefix.endswith("sha256") else value)}


def _text(value: Any) -> str:
    if value is None:
        return NOTHING
    if isinstance(value, list):
        return " ".join(map(_text, value))
    if isinstance(value, float):
        return f"{value:g}"
    return str(value)


def outcome_table(runs: Sequence[RunRecord]) -> Table:
    """The progress of one command's runs and the newest values of their logs, one column per run."""
    rows = _newest(runs, PROGRESS)
    if runs[0].kind == "pretrain":
        even = [run.embedding_size**-0.5 for run in runs]
        stds = [run.last("embedding_std") for run in runs]
        shares = [None if std is None else std / full for std, full in zip(stds, even, strict=True)]
        rows.append(("  at perfect agreement", *(_number(lowest_loss(run), ".0f") for run in runs)))
        rows.append(("Embedding std, relative to an even spread", *(_number(share, ".0%") for share in shares)))
        rows += _newest(runs, {"effective_rank": ("Effective rank", ".1f")})
        if rows[-1][1:] != (NOTHING,) * len(runs):
            rows.append(("  at most, by the embeddings in a batch", *(_number(run.rank_bound, ",.0f") for run in runs)))
        rows += _newest(runs, PRETRAINED)
    else:
        keys = dict.fromkeys(key for run in runs for line in run.lines for key in line)
        rows += _newest(runs, {key: (key.replace("_", " "), ".2f") for key in keys if key.startswith(SCORES)})
        rows += _newest(runs, SPEED)
    shown = [row for row in rows if any(cell != NOTHING for cell in row[1:])]
    return Table(("Newest values", *(run.name for run in runs)), shown)


def _newest(runs: Sequence[RunRecord], fields: Mapping[str, tuple[str, str | None]]) -> list[tuple[str, ...]]:
    """One row per field of the log: its name, and the newest value of each run. fields: key → name and format."""
    return [
        (name, *(_number(run.last(key), number_format) for run in runs))
        for key, (name, number_format) in fields.items()
    ]


def lowest_loss(run: RunRecord) -> float:
    """The loss of a pretraining run at perfect agreement of the views."""
    return build_objective(run.settings(ObjectiveSettings, "objective")).lowest(run.views)


def _number(value: float | None, number_format: str | None) -> str:
    """The value as text, with three significant digits if no format is given."""
    if value is None:
        return NOTHING
    return (rounded(value) if number_format is None else format(value, number_format)).replace("-", "−")
