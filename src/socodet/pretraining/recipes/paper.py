"""The runs of the paper's tables."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from socodet.models.settings import Architecture, ModelSettings
from socodet.pretraining.recipes.recipe import Recipe
from socodet.pretraining.settings import TrainingSettings
from socodet.proposals.settings import ProposalSettings
from socodet.views.settings import SampleSettings, ViewSettings


def fpn_100ep() -> Recipe:
    """SoCo-R50-FPN, 100 epochs: Tables 1, 4, 5, 8 and 9 of the paper (42.3 AP with Mask R-CNN, COCO 1x).

    socodet pretrain IMAGENET/train --recipe fpn_100ep --output runs/fpn_100ep
    """
    return Recipe("fpn_100ep")


def fpn_400ep() -> Recipe:
    """SoCo-R50-FPN, 400 epochs: Tables 1 and 8 of the paper (43.0 AP with Mask R-CNN, COCO 1x).

    socodet pretrain IMAGENET/train --recipe fpn_400ep --output runs/fpn_400ep
    """
    return Recipe("fpn_400ep", training=TrainingSettings(epochs=400))


def fpn_star_400ep() -> Recipe:
    """SoCo*-R50-FPN, 400 epochs, a fourth view: Tables 1, 6, 7, 8 and 10 (43.2 AP with Mask R-CNN, COCO 1x).

    V4 is another random crop of V1, at 192 pixels (section 4.3).

    socodet pretrain IMAGENET/train --recipe fpn_star_400ep --output runs/fpn_star_400ep
    """
    three = SampleSettings()
    fourth = ViewSettings("crop", 192, three.views[1].photometric)
    return Recipe(
        "fpn_star_400ep",
        sample=replace(three, views=(*three.views, fourth)),
        training=TrainingSettings(epochs=400),
    )


def c4_100ep() -> Recipe:
    """SoCo-R50-C4, 100 epochs: Tables 2 and 3 of the paper (40.4 AP with Mask R-CNN R50-C4, COCO 1x).

    Boxes are pooled from C4, the fifth residual block is the head, there is no V3 (section 3.3). The paper does not
    give the pooled size; its public code and Detectron2's C4 detector pool 14x14. `--pooled-size 7` needs a quarter of
    the head's computation.

    socodet pretrain IMAGENET/train --recipe c4_100ep --output runs/c4_100ep
    """
    return Recipe(
        "c4_100ep",
        sample=SampleSettings(views=SampleSettings().views[:2], level_rule="single"),
        model=ModelSettings(architecture="c4", pooled_size=14),
    )


def c4_400ep() -> Recipe:
    """SoCo-R50-C4, 400 epochs: Tables 2 and 3 of the paper (40.9 AP with Mask R-CNN R50-C4, COCO 1x).

    socodet pretrain IMAGENET/train --recipe c4_400ep --output runs/c4_400ep
    """
    return replace(c4_100ep(), name="c4_400ep", training=TrainingSettings(epochs=400))


def coco_100ep() -> Recipe:
    """SoCo-R50-FPN on COCO's images, 100 epochs: Table 9 of the paper (37.3 AP with Mask R-CNN, COCO 1x).

    COCO_TRAIN_AND_UNLABELED is a folder that holds train2017 and unlabeled2017 (links to them will do), but not the
    images of val2017 that detectors are scored on.

    socodet pretrain COCO_TRAIN_AND_UNLABELED --recipe coco_100ep --output runs/coco_100ep
    """
    return Recipe("coco_100ep")


def coco_530ep() -> Recipe:
    """SoCo-R50-FPN on COCO's images, 530 epochs: Table 9 of the paper (40.6 AP with Mask R-CNN, COCO 1x).

    socodet pretrain COCO_TRAIN_AND_UNLABELED --recipe coco_530ep --output runs/coco_530ep
    """
    return Recipe("coco_530ep", training=TrainingSettings(epochs=530))


def imagenet_subset_100ep() -> Recipe:
    """SoCo-R50-FPN on as many of ImageNet's images as COCO has: Table 9 of the paper (36.9 AP, COCO 1x).

    COCO's train2017 and unlabeled2017 together hold 241,690 images.

    socodet pretrain IMAGENET/train --limit 241690 --recipe imagenet_subset_100ep --output runs/imagenet_subset
    """
    return Recipe("imagenet_subset_100ep")


def table4() -> dict[str, Callable[[], Recipe]]:
    """Table 4, one recipe per row: what each component adds. Its last row equals `fpn_100ep`.

    The paper does not say how the rows with an FPN but no scale-aware assignment choose pyramid levels; here they
    follow Mask R-CNN's rule (k0 = 4 at 224). The whole-image row does not use its proposals, so windows may cut them
    off; a window that shows no pixel of any proposal is drawn again.
    """
    two = SampleSettings().views[:2]
    no_jitter = SampleSettings(views=two, jitter=0.0, level_rule="canonical")
    image = replace(no_jitter, boxes_per_image=1, min_visible=0.0, min_box_side=1.0, level_rule="single")
    rows: list[tuple[str, str, str, SampleSettings, Architecture]] = [
        ("whole_image", "whole image as the one instance", "38.1", image, "image"),
        ("selective_search", "+ selective search", "40.6", replace(no_jitter, level_rule="single"), "c5"),
        ("fpn", "+ FPN", "40.2", no_jitter, "fpn_no_head"),
        ("head", "+ head", "41.2", no_jitter, "fpn"),
        ("scale_aware", "+ scale-aware assignment", "41.6", replace(no_jitter, level_rule="scale_aware"), "fpn"),
        ("box_jitter", "+ box jitter", "41.7", SampleSettings(views=two), "fpn"),
        ("multi_view", "+ multi-view", "42.3", SampleSettings(), "fpn"),
    ]
    return dict(
        _variant(f"table4_{name}", f"Table 4: {what}", ap, sample=sample, model=ModelSettings(architecture=encoder))
        for name, what, ap, sample, encoder in rows
    )


def table5() -> dict[str, Callable[[], Recipe]]:
    """Table 5: size of V3, batch, proposals and their number K, target momentum."""
    v1, v2, v3 = SampleSettings().views
    recipes: list[tuple[str, Callable[[], Recipe]]] = []
    for size, ap in ((96, "42.1"), (112, "42.3"), (128, "42.1"), (160, "42.0"), (192, "42.2")):
        sample = SampleSettings(views=(v1, v2, replace(v3, size=size)))
        recipes.append(_variant(f"table5a_{size}", f"Table 5(a): V3 at {size}", ap, sample=sample))
    for batch, ap in ((512, "41.7"), (1024, "41.9"), (2048, "42.3"), (4096, "41.4")):
        training = TrainingSettings(batch_size=batch)
        recipes.append(_variant(f"table5b_{batch}", f"Table 5(b): batches of {batch}", ap, training=training))
    for k, ap in ((1, "41.6"), (4, "42.3"), (8, "41.6"), (16, "41.2")):
        sample = SampleSettings(boxes_per_image=k)
        recipes.append(_variant(f"table5c_ss_{k}", f"Table 5(c): selective search, K = {k}", ap, sample=sample))
    random = ProposalSettings(method="random")
    for k, ap in ((1, "41.4"), (4, "NaN"), (8, "NaN")):
        sample, what = SampleSettings(boxes_per_image=k), f"Table 5(c): random boxes, K = {k}"
        recipes.append(_variant(f"table5c_random_{k}", what, ap, sample=sample, proposals=random))
    for tau, ap in ((0.98, "35.0"), (0.99, "42.3"), (0.993, "41.8")):
        name, training = f"table5d_{tau:.3f}".replace(".", ""), TrainingSettings(target_momentum=tau)
        recipes.append(_variant(name, f"Table 5(d): target momentum {tau}", ap, training=training))
    return dict(recipes)


def _variant(name: str, what: str, ap: str, **settings: Any) -> tuple[str, Callable[[], Recipe]]:
    """A table's recipe as (name, function); the function also has its description and the paper's AP."""

    def variant() -> Recipe:
        return Recipe(name, **settings)

    variant.__name__ = name
    variant.what, variant.paper_ap = what, ap  # type: ignore[attr-defined]
    outcome = "the paper's training diverged" if ap == "NaN" else f"{ap} AP with Mask R-CNN, COCO 1x"
    variant.__doc__ = f"{what} ({outcome}).\n\nsocodet pretrain IMAGENET/train --recipe {name} --output runs/{name}"
    return name, variant
