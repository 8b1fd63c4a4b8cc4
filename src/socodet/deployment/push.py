"""`socodet push`: uploads a run to the Hugging Face Hub as weights without code, JSON, and a model card."""

import json
import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from socodet.deployment.card import detector_card, scores_of
from socodet.errors import InputError
from socodet.exporting.card import model_card
from socodet.exporting.files import FrameworkFiles
from socodet.exporting.modules import pretrained_modules
from socodet.finetuning.detector import load_detector
from socodet.finetuning.run import SCORES, is_finetuned, load_weights
from socodet.finetuning.trainer import scored_weights
from socodet.runtime.files import read_note, write_note
from socodet.runtime.shown import Shown
from socodet.training.checkpoint_file import SAFETENSORS, weights_alone
from socodet.training.run_folder import Checkpoint, RunFolder
from socodet.weights.hub import HUB, hub_errors, import_hub

_FOLDER, _LAST = r"""[\\/](?!\s)[^\\/:;,"'()<>|\n]*(?<!\s)(?=[\\/])""", r"""[\\/][^\\/:;,"'()<>|\s]+"""
_INNER_PATH = re.compile(
    rf"(?:\bfile://|(?<![\w./\\~-]))(?P<path>(?:[A-Za-z]:(?=[\\/])|\\(?=\\)|(?=/(?!/)))(?:{_FOLDER})*{_LAST})"
)
"""An absolute Linux or Windows path within a text; its folder names may contain spaces, its last part may not."""


@dataclass(frozen=True)
class Pushed(Shown):
    """A run on the Hub."""

    run: Path
    name: str
    """The name by which commands read it: `hub:USER/NAME`."""
    url: str
    commit: str
    is_detector: bool
    """Whether it is a fine-tuned detector rather than a pretraining run."""
    unfinished: str | None
    """How far an unfinished run got, such as `30 of 100 steps`; None if its best weights were uploaded."""

    def __str__(self) -> str:
        return f"{self.run}: on the Hub as {self.name}, {self.url}"


def push(
    run: str | Path,
    repository: str,
    *,
    license: str | None = None,
    datasets: Sequence[str] = (),
    private: bool = False,
    checkpoint: Checkpoint = "best",
) -> Pushed:
    """Uploads a pretraining or fine-tuning run to the model repository `USER/NAME` on the Hugging Face Hub.

    A missing repository is created; an existing one gets a new commit, and earlier commits stay. With `private`, an
    existing public repository is refused. Uploaded are the weights as safetensors without the optimizer's state, the
    settings, the log, the scores, and a model card; paths on this machine are cut to their last part. Everything that
    reads a run also reads `hub:USER/NAME`.

    license, datasets: for the card, by the Hub's identifiers, such as `cc-by-4.0`. checkpoint: of a fine-tuned
    detector, `best` on its validation set (if it was scored during training) or `last`. InputError for a folder
    without a checkpoint, and for whatever the Hub refuses.
    """
    repository = repository.removeprefix(HUB)
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repository):
        raise InputError(f"push: {repository}: is not a repository name; write USER/NAME")
    folder = RunFolder(Path(run))
    folder.describe()
    what = f"push {repository}"
    hub = import_hub("push")
    if hub.get_token() is None:
        raise InputError(f"{what}: there is no token; run `hf auth login`, or set HF_TOKEN")
    with tempfile.TemporaryDirectory() as temporary:
        shared = RunFolder(Path(temporary) / folder.path.resolve().name)
        weights, unfinished = _write_shared(folder, shared, checkpoint)
        card = hub.ModelCardData(
            license=license,
            library_name="socodet",
            datasets=list(datasets) or None,
            tags=["socodet", "object-detection", "self-supervised-learning"],
            **_facts(hub, shared, repository),
        )
        text = f"---\n{card.to_yaml()}\n---\n\n{_card(shared, weights, repository)}"
        (shared.path / "README.md").write_bytes(_to_utf8(text))
        with hub_errors(what):
            api = hub.HfApi()
            api.create_repo(repository, private=private, exist_ok=True)
            if private and not api.repo_info(repository).private:  # an existing one keeps its visibility
                raise InputError(
                    f"{what}: --private, but this repository exists and is public, so nothing was uploaded; make it "
                    "private in its settings on the Hub, or give another name"
                )
            done = api.upload_folder(
                repo_id=repository,
                folder_path=shared.path,
                commit_message=_to_utf8(f"{folder.path.resolve().name}, by socodet push").decode(),
                delete_patterns=[f"checkpoints/*{SAFETENSORS}", shared.log.name, SCORES],  # of an earlier run
            )
            url = f"{api.endpoint}/{repository}"
    return Pushed(folder.path, f"{HUB}{repository}", url, done.oid, is_finetuned(folder.path), unfinished)


def _to_utf8(text: str) -> bytes:
    """UTF-8; characters of file names that UTF-8 cannot hold are escaped."""
    return text.encode(errors="backslashreplace")


def _write_shared(run: RunFolder, shared: RunFolder, checkpoint: Checkpoint) -> tuple[Path, str | None]:
    """Writes the shared parts of a run as a run folder; returns the file of weights, and `Pushed.unfinished`."""
    state, is_best = load_weights(run, checkpoint)
    if "detector" in state:
        state = {**{name: state[name] for name in ("step", "total_steps")}, "detector": scored_weights(state)}
    weights = shared.checkpoint(state["step"]).with_suffix(SAFETENSORS)
    weights.parent.mkdir(parents=True)
    weights.write_bytes(weights_alone(state))
    described = {name: value for name, value in run.describe().items() if name != "command"}
    write_note(shared.path / "run.json", _base_names(described))
    if run.log.is_file():
        shared.log.write_text("".join(f"{json.dumps(_base_names(line))}\n" for line in run.log_lines()))
    scores = read_note(run.path / SCORES)
    if scores is not None:
        write_note(shared.path / SCORES, _base_names(scores))
    done, total = state["step"], state["total_steps"]
    return weights, f"{done} of {total} steps" if not is_best and done < total else None


def _base_names(value: Any) -> Any:
    """JSON in which paths on this machine are cut to their last part."""
    if isinstance(value, dict):
        return {name: _base_names(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_base_names(one) for one in value]
    if isinstance(value, str):
        for path in (PurePosixPath(value), PureWindowsPath(value)):
            if path.is_absolute():
                return path.name
        return _INNER_PATH.sub(lambda found: PureWindowsPath(found["path"]).name, value)  # it takes both kinds of slash
    return value


def _card(shared: RunFolder, weights: Path, repository: str) -> str:
    """The card of an export with this package as the framework."""
    detector = is_finetuned(shared.path)
    use = (
        f'detector = socodet.load_detector("{HUB}{repository}")\nfound = detector.predict(["image.jpg"])'
        if detector
        else f'socodet.finetune("labelled", "runs/detector", init="{HUB}{repository}")'
    )
    files = FrameworkFiles(
        weights={weights: weights.read_bytes()}, left_out={weights: ()}, how_to_load=f"import socodet\n\n{use}"
    )
    if detector:
        return detector_card(load_detector(shared.path, device="cpu"), files, "socodet")
    return model_card(shared.path, pretrained_modules(shared.path), files, "socodet")[0]


def _facts(hub: Any, shared: RunFolder, repository: str) -> dict[str, Any]:
    """Metadata that the Hub shows: the task, and a detector's scores."""
    if not is_finetuned(shared.path):
        return {"pipeline_tag": "image-feature-extraction"}
    detector = load_detector(shared.path, device="cpu")
    scores, on = scores_of(detector, shared)
    results = [
        hub.EvalResult(
            task_type="object-detection",
            dataset_type=re.sub(r"\W+", "-", on) or "unknown",
            dataset_name=on,
            metric_type=name,
            metric_name=name.replace("_", " "),
            metric_value=round(value, 3),
        )
        for name, value in scores.items()
    ]
    if not results:
        return {"pipeline_tag": "object-detection"}
    name = repository.rpartition("/")[2]
    return {
        "pipeline_tag": "object-detection",
        "metrics": list(scores),
        "model_name": name,
        "eval_results": results,
    }
