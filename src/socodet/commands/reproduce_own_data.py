"""`socodet reproduce own-data`: measures the gain from pretraining on a dataset's own images."""

from pathlib import Path
from typing import Annotated, Any

from socodet.commands.messages import resume_hint
from socodet.commands.parsing import Flat, reads_images
from socodet.detection.datasets.reading import ReadingSettings
from socodet.errors import InputError
from socodet.studies.own_data.protocol import FOLDS, FRACTIONS, NAME, OwnDataSettings, Weights
from socodet.training.settings import ExecutionSettings


@reads_images
def reproduce_own_data(
    data: Path,
    output: Path,
    settings: Annotated[OwnDataSettings, Flat] = OwnDataSettings(),
    images: Path | None = None,
    weights: Path | None = None,
    weights_backbone: str | None = None,
    weights_name: str = NAME,
    only: tuple[str, ...] = (),
    fractions: tuple[float, ...] = FRACTIONS,
    folds: tuple[int, ...] = FOLDS,
    reading: Annotated[ReadingSettings, Flat] = ReadingSettings(),
    execution: Annotated[ExecutionSettings, Flat] = ExecutionSettings(),
    retry_diverged: bool = False,
    overwrite: bool = False,
) -> Any:
    """Measure how much pretraining on a labelled dataset's own images helps when labels are few.

    It compares initial weights ("starts"): SoCo, the image-level baseline, scratch, and weights that you give. Each is
    pretrained once, and detectors are fine-tuned from each, fold by fold, for as long as training from scratch
    improves. If interrupted, the same command resumes; fractions, folds and starts can be added later.

    Args:
        data: Annotated dataset with a training and a validation split, as for `socodet finetune`; without a validation
            split, give --val-share.
        output: Folder for the runs and the tables.
        images: Images to pretrain on; by default the training split's, without their labels.
        weights: File of a pretrained backbone to compare with and to start from, such as one trained on ImageNet.
        weights_backbone: The backbone of --weights, as for `pretrain --backbone`.
        weights_name: Name of --weights in the tables.
        only: Starts to run. By default all except soco_rpn, which also pretrains an RPN head, and
            imagenet_soco_adapted, in which the backbone is trained too.
        fractions: Fractions of the labels, in the order in which they are run.
        folds: Folds to run, by number; each uses different labels and a different seed.
        retry_diverged: Rerun diverged runs from their last good checkpoint.
        overwrite: Delete the study in the folder.
    """
    if (weights is None) != (weights_backbone is None):
        raise InputError("--weights and --weights-backbone: give both, the file and the name of its network")
    if weights is None and weights_name != NAME:
        raise InputError("--weights-name has no effect without --weights; leave it out")
    from socodet.studies.own_data.running import reproduce_own_data

    given = None if weights is None or weights_backbone is None else Weights(weights, weights_backbone, weights_name)
    found = reproduce_own_data(
        data,
        output,
        settings,
        images=images,
        weights=given,
        only=only,
        fractions=fractions,
        folds=folds,
        reading=reading,
        execution=execution,
        retry_diverged=retry_diverged,
        overwrite=overwrite,
    )
    print(found.as_markdown())
    stopped = f"stopped by {found.stopped_by}{resume_hint(overwrite)}; " if found.stopped_by else ""
    print(f"{stopped}{found.markdown}: written")
    return found
