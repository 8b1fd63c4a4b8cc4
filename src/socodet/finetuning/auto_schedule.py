"""`--schedule auto`: the paper's schedule for its own sets, and for any other a length by the number of images."""

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from socodet.detection.datasets.annotations import DetectionDataset

AUTO = "auto"
VOC_IMAGES, VOC_STEPS = 16_551, 24_000
COCO_IMAGES, COCO_STEPS = 117_266, 90_000
"""The paper's two lengths: images of VOC's trainval 2007 and 2012, and of COCO's train2017 that have an object."""
EXPONENT = 0.675
"""Of the power law through these two, ln(90,000 / 24,000) / ln(117,266 / 16,551)."""
LEAST_STEPS = 500
"""Of 16 images: fresh heads learn little in fewer."""
PRECISE_BN_SHARE = 50
"""Batch norm's statistics are re-estimated on this part of the run's steps: it is scored along the way."""
EVALUATIONS, LEAST_BETWEEN = 10, 20
"""How often a run is scored, and steps between at least, where the user does not say."""
SCORED_SHARE = 0.5
"""Images scored along the way, at most, for each that is trained on: else scoring would take most of the time."""

WHOLE = {"coco": 50_000, "voc": 5_000, "lvis": 50_000}
"""A set with the classes of COCO, VOC or LVIS is the set itself, and no sample of it, from this many images on."""
LVIS_CLASSES = 1203


def schedule_of(data: "DetectionDataset") -> str:
    """The name of the paper's schedule for COCO, Pascal VOC and LVIS, and `auto` for any other set."""
    from torchvision.models.detection import MaskRCNN_ResNet50_FPN_Weights

    from socodet.detection.datasets.voc import VOC_CLASSES

    of_coco = frozenset(MaskRCNN_ResNet50_FPN_Weights.COCO_V1.meta["categories"]) - {"__background__", "N/A"}
    names = frozenset(category.name for category in data.categories)
    if data.style == "lvis" and len(names) == LVIS_CLASSES and len(data) >= WHOLE["lvis"]:
        return "lvis_1x"
    if data.style == "coco" and names == of_coco and len(data) >= WHOLE["coco"]:
        return "coco_1x"
    if data.style == "voc" and names == frozenset(VOC_CLASSES) and len(data) >= WHOLE["voc"]:
        return "voc_24k"
    return AUTO


def steps_for(images: int) -> int:
    """Steps of 16 images for a training set of this many: 763 for 100, 3,610 for 1,000; at least 500, at most COCO's.

    The power law through the paper's lengths for VOC and COCO. A smaller set is passed over more often.
    """
    steps: int = round(VOC_STEPS * (max(images, 1) / VOC_IMAGES) ** EXPONENT)
    return min(max(steps, LEAST_STEPS), COCO_STEPS)


def steps_between_evaluations(steps: int, batch: int, scored: int) -> int:
    """Steps between evaluations on `scored` images in a run of `steps` batches: ten evaluations, fewer in a short run.

    For example every 50 of 500 steps of 16 images with 100 to score, and only the end of 37 steps of 2 with 67.
    """
    cheap = int(SCORED_SHARE * steps * batch / max(scored, 1))
    evaluations = max(1, min(EVALUATIONS, cheap, steps // LEAST_BETWEEN))
    return math.ceil(steps / evaluations)
