"""`socodet predict`: runs a fine-tuned detector on new images and writes the detections to a folder.

OUTPUT/predictions.json  COCO's result format, with each image's name and each object's class beside their ids
OUTPUT/predictions.csv   the same as a table: file_name, label, score, x1, y1, x2, y2
OUTPUT/drawn/            with `draw`: the images with their objects
OUTPUT/predict.json      the arguments of the call
OUTPUT/found.jsonl       one line per image, written as it runs, from which an interrupted call resumes

Images that were added, whose files have changed, or that could not be read are processed when the call is repeated.
"""

import hashlib
import io
import math
import shutil
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from socodet.detection.inference import detect_each
from socodet.detection.scores import Detections
from socodet.detection.scores.outcomes import threshold_text
from socodet.detection.scores.predicted import JSON, LINES
from socodet.errors import InputError, UnreadableImageError
from socodet.finetuning.detector import TrainedDetector, load_detector, select_detections
from socodet.images.source import Images, ImageSource, digest_names, image_ids, read_pixels, reading_of, size_of
from socodet.images.truncated import TRUNCATED
from socodet.prediction.detection_lines import CSV, DetectionLines, VersionedImages, names_in
from socodet.prediction.drawing import draw_objects
from socodet.prediction.drawing_names import DrawingNames
from socodet.prediction.inputs import NOTE, check_prediction_arguments
from socodet.prediction.result import PredictResult
from socodet.runtime.counted import counted
from socodet.runtime.differences import differences
from socodet.runtime.extensions import is_extension
from socodet.runtime.files import read_note, write_atomically, write_note
from socodet.runtime.folder_locks import lock_folder, releases_folder_locks
from socodet.runtime.notices import log_note
from socodet.runtime.progress import progress_bar
from socodet.runtime.serialization import to_json
from socodet.training.devices import workers_for
from socodet.training.run_folder import Checkpoint
from socodet.training.settings import DeviceSettings
from socodet.training.signals import stop_requests
from socodet.weights.hub import reads_hub

DRAWN = "drawn"
MIN_SCORE = 0.05
"""The default lowest score that is written."""
DRAWN_FROM = 0.3
"""The lowest score that is drawn if no better threshold is known."""
SIZED = 16
"""Number of images whose sizes are read to choose the number of data workers."""
POOR_F1 = 10.0
"""F1 in percent that counts as poor: precision or recall is then below this, too."""


@releases_folder_locks
@reads_hub("detector")
def predict(
    detector: str | Path | TrainedDetector,
    images: Images,
    output: str | Path,
    *,
    min_score: float | None = None,
    max_detections: int | None = None,
    batch_size: int = 1,
    draw: bool = False,
    checkpoint: Checkpoint = "best",
    execution: DeviceSettings | None = None,
    overwrite: bool = False,
    show_progress: bool = True,
) -> PredictResult:
    """Detects objects in every image and writes the detections to the folder `output`.

    detector: a fine-tuning run's folder, or what `load_detector` returned. images: anything that `pretrain` reads, or
    one image file. min_score: the lowest score that is written and drawn. By default, scores from 0.05 on are written,
    and `draw` starts at the score threshold with the highest F1 on the validation set, or at 0.3 if the weights were
    not scored. checkpoint: which checkpoint of a run to use, as in `load_detector`.

    Repeating the call resumes an interrupted one, and processes again the images whose files have changed or that could
    not be read. A folder with the results of a different call or other weights is refused unless `overwrite`. Images
    that cannot be read are counted and listed. InputError for input that cannot be used.
    """
    began = time.monotonic()
    execution = execution or DeviceSettings()
    source, folder = check_prediction_arguments(
        detector, images, output, min_score=min_score, max_detections=max_detections, batch_size=batch_size
    )
    if not isinstance(detector, TrainedDetector):
        detector = load_detector(
            detector, checkpoint=checkpoint, device=execution.device, precision=execution.precision
        )
    detector.check_ready()
    written_from = MIN_SCORE if min_score is None else min_score
    drawn_from, why = _drawing_limit(detector, min_score)
    requested: dict[str, Any] = {
        "detector": {"step": detector.step, "weights_sha256": _digest(detector.network)},
        "images": {"count": len(source), "names_sha256": digest_names(source)},
        "settings": {
            "min_score": written_from,
            "max_detections": max_detections,
            "batch_size": batch_size,
            "draw": draw,
            **({"drawn_from": drawn_from} if draw else {}),
        },
    }
    requested |= _values_read(to_json(reading_of(source)))
    lock_folder(folder)
    _prepare(folder, requested, str(Path(detector.run).absolute()), source, overwrite=overwrite)
    lines = DetectionLines.of_earlier_calls(folder, source)
    left, stopped_by = VersionedImages(lines.left, source), None
    names = DrawingNames(source, lines.left, lines.drawn_apart) if draw else None
    if left:
        for name in (JSON, CSV):  # they are written once all images are done
            (folder / name).unlink(missing_ok=True)
        device = next(detector.parameters()).device
        together = 0.0 if execution.workers is not None else batch_size * _image_bytes(source, lines.left)
        workers = workers_for(execution.workers, device, together, show_note=show_progress)
        found = detect_each(
            detector.network,
            partial(read_pixels, source),
            left,
            batch_size=batch_size,
            precision=detector.precision,
            workers=workers,
        )
        with (
            closing(found),
            closing(lines.begin()) as file,
            stop_requests(show_progress) as requests,
            progress_bar("predict", len(source), show=show_progress) as progress,
        ):
            progress.done_earlier(len(source) - len(left))
            for index, answer in found:
                line: dict[str, Any] = {"file_name": source.key(index), "version": left.version(index)}
                if isinstance(answer, str):
                    line["unreadable"] = answer
                else:
                    kept = select_detections(answer, written_from, max_detections)
                    line["objects"] = list(_objects(kept, detector))
                    if names is not None:
                        shown = kept.take(np.flatnonzero(kept.scores >= drawn_from))
                        name = names.of(source.key(index))
                        _draw(folder / DRAWN / name, source, index, shown, detector)
                        line |= {"drawn": name} if source.key(index) in names.apart else {}
                lines.add(file, index, line)
                progress.advance()
                if requests:
                    stopped_by = requests[0]
                    break
        TRUNCATED.report()
    if lines.done == len(source):
        lines.write_results(image_ids(source), show_progress=show_progress)
    return PredictResult(
        output=folder,
        images=len(source),
        done=lines.done,
        detections=lines.detections,
        unreadable=lines.unreadable,
        stopped_by=stopped_by,
        seconds=time.monotonic() - began,
        limits=_limits(detector, written_from, max_detections)
        + (_drawn(drawn_from, why, lines.highest_score) if draw else ""),
        of_classes=dict(lines.of_classes.most_common()),
        drawn=() if names is None else _there(folder / DRAWN / names.of(key) for key in lines.highest_scoring),
    )


def _image_bytes(source: ImageSource, indices: Sequence[int]) -> float:
    """About how many bytes an image takes as pixels: the mean of some of them."""
    sizes = []
    for index in indices[:: math.ceil(len(indices) / SIZED)]:
        with suppress(UnreadableImageError, OSError):
            sizes.append(3 * math.prod(size_of(source, index)))
    return sum(sizes) / max(1, len(sizes))


def _there(files: Iterable[Path]) -> tuple[Path, ...]:
    """Without those of images that were gone before they could be drawn, or that were deleted since."""
    return tuple(file for file in files if file.is_file())


def _limits(detector: TrainedDetector, written_from: float, max_detections: int | None) -> str:
    """Describes which detections are written, and mentions limits of the detector itself that are stricter."""
    own = detector.recipe.inference
    known = not is_extension(detector.recipe.settings.detector)  # a user's own detector may have other limits
    text = f"from a score of {written_from:g}"
    if known and written_from < own.score_threshold:
        text = f"from a score of {own.score_threshold:g}, below which this detector returns nothing"
    if known and max_detections is not None and max_detections > own.detections:
        text += f"; at most {own.detections:,} in an image, as this detector returns no more"
    return text


def _drawing_limit(detector: TrainedDetector, min_score: float | None) -> tuple[float, str]:
    """The lowest score that is drawn, and why."""
    if min_score is not None:
        return min_score, "as requested"
    if detector.f1_limit is not None:
        limit = max(detector.f1_limit, MIN_SCORE)
        f1 = detector.best_f1
        high = "" if f1 is None else f" ({f1:.1f} of 100)"
        if f1 is not None and f1 < POOR_F1:
            high += ", which is very low: most of its detections are false, or it misses most objects"
        return limit, f"where F1 on the validation set is highest{high}; --min-score overrides it"
    return DRAWN_FROM, "because the detector was not scored or found nothing in training; --min-score overrides it"


def _drawn(drawn_from: float, why: str, highest: float | None) -> str:
    """The score from which detections are drawn, the reason, and a remark if none was. highest: the highest score."""
    text = f"; drawn from {threshold_text(drawn_from)}, {why}"
    if highest is None:
        return "; the drawings show no box"
    if np.float32(highest) < np.float32(drawn_from):
        return f"{text}; the drawings show no box, as the highest score is {highest:.2f}"
    return text


def _digest(network: nn.Module) -> str:
    """SHA-256 of a network's weights, since another detector may have the same number of steps or the same folder."""
    digest = hashlib.sha256()
    for name, value in network.state_dict().items():
        digest.update(name.encode() + b"\0")
        if isinstance(value, torch.Tensor):
            digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _prepare(folder: Path, requested: dict[str, Any], run: str, source: ImageSource, *, overwrite: bool) -> None:
    """Starts the folder, or checks that it belongs to the same call, perhaps with more images now.

    run: the detector's path, which is recorded for reference.
    """
    there = read_note(folder / NOTE)
    noted = {k: v for k, v in (there or {}).items() if k not in ("run", "reading")}
    noted |= _values_read((there or {}).get("reading") or {})
    difference = None if there is None else differences(requested, noted)
    if difference and not overwrite and {**noted, "images": None} == {**requested, "images": None}:
        names = {source.key(index) for index in range(len(source))}
        if names.issuperset(names_in(folder)):
            more = len(source) - noted["images"]["count"]
            if more > 0:
                log_note(f"{folder}: {counted(more, 'image')} more than in the last call")
            write_note(folder / NOTE, {**requested, "run": run})
            return
    if difference and not overwrite:
        raise InputError(
            f"{folder}: holds other predictions: {difference}; repeat the command with the same flags to "
            "resume, give another --output, or pass --overwrite to lose them"
        )
    if overwrite and there is not None:
        for name in (LINES, JSON, CSV):  # not the note, which identifies the folder: it is replaced
            (folder / name).unlink(missing_ok=True)
        shutil.rmtree(folder / DRAWN, ignore_errors=True)
        there = None
    if there is None:
        write_note(folder / NOTE, {**requested, "run": run})


def _values_read(reading: dict[str, Any]) -> dict[str, Any]:
    """The part of `reading` that affects pixel values; not its size limit, as images above that count as unreadable."""
    values = {name: value for name, value in reading.items() if name != "max_pixels" and value is not None}
    return {"reading": values} if values else {}


def _objects(found: Detections, detector: TrainedDetector) -> Iterator[dict[str, Any]]:
    return found.entries(lambda label: detector.categories[label - 1].in_results())


def _draw(file: Path, source: ImageSource, index: int, found: Detections, detector: TrainedDetector) -> None:
    """Draws one image with its objects; skips it if the image can no longer be read."""
    try:
        pixels = read_pixels(source, index)
    except (InputError, OSError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        log_note(f"{source.key(index)}: not drawn, because it can no longer be read ({why})")
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    names = [detector.class_names[label - 1] for label in found.labels]
    with io.BytesIO() as drawn:
        draw_objects(pixels, found, names).save(drawn, "JPEG", quality=90)
        write_atomically(file, drawn.getvalue())
