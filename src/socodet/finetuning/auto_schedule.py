"""`--schedule auto`: the paper's schedule for its datasets; for others, a length by the number of images."""

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from socodet.detection.datasets.annotations import DetectionDataset

AUTO = "auto"
VOC_IMAGES, VOC_STEPS = 16_551, 24_000
COCO_IMAGES, COCO_STEPS = 117_266, 90_000
"""The paper's two lengths. Images with an object: VOC's trainval 2007 and 2012, and COCO's train2017."""
EXPONENT = 0.675
"""Exponent of the power law through these two points: ln(90,000 / 24,000) / ln(117,266 / 16,551)."""
LEAST_STEPS = 500
"""Minimum number of steps of 16 images; newly initialised heads learn little in fewer."""
PRECISE_BN_SHARE = 50
"""Precise batch norm uses at most 1/50 of the run's steps, because every evaluation repeats it."""
EVALUATIONS, LEAST_BETWEEN = 10, 20
"""Default number of evaluations, and minimum number of steps between them."""
SCORED_SHARE = 0.5
"""Maximum number of images scored per image trained on; with more, scoring would take most of the time."""

WHOLE = {"coco": 50_000, "voc": 5_000, "lvis": 50_000}
"""A dataset with the classes of COCO, VOC or LVIS and at least this many images is the real one, not a sample of it."""
LVIS_CLASSES = 1203


def schedule_of(data: "DetectionDataset") -> str:
    """The name of the paper's schedule for COCO, Pascal VOC and LVIS; `auto` for any other dataset."""
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
    """Steps of 16 images for this many training images: 763 for 100, 3,610 for 1,000; at least 500, at most COCO's.

    Follows the power law through the paper's lengths for VOC and COCO. A smaller dataset gets more epochs.
    """
    steps: int = round(VOC_STEPS * (max(images, 1) / VOC_IMAGES) ** EXPONENT)
    return min(max(steps, LEAST_STEPS), COCO_STEPS)


def steps_between_evaluations(steps: int, batch: int, scored: int) -> int:
    """Steps between evaluations on `scored` images in a run of `steps` batches: ten evaluations, fewer in a short run.

    Examples: every 50 steps for 500 steps of 16 images and 100 to score; only at the end for 37 steps of 2 and 67.
    """
    cheap = int(SCORED_SHARE * steps * batch / max(scored, 1))
    evaluations = max(1, min(EVALUATIONS, cheap, steps // LEAST_BETWEEN))
    return math.ceil(steps / evaluations)
