"""Training of masks, compared with torchvision's heads, which agree in everything else."""

import pytest
import torch
from narrow_models import NARROW
from torch.nn.functional import binary_cross_entropy
from torchvision.models.detection.roi_heads import RoIHeads

from socodet.detection.detectors.by_name import new_detector
from socodet.detection.detectors.mask_heads import mask_loss, mask_targets
from socodet.detection.detectors.settings import InferenceSettings
from socodet.detection.detectors.transform import paste_masks

SMALL = InferenceSettings(short_side=64, max_side=96, score_threshold=0.0, detections=5, rois_per_image=16)


def test_target_of_a_box_in_whole_pixels_is_its_part_of_the_mask():
    """One cell per pixel is a copy, one cell per 2x2 pixels their mean; pasting the copy gives the mask back."""
    generator = torch.Generator().manual_seed(0)
    masks = (torch.rand(3, 12, 14, generator=generator) < 0.5).byte()
    boxes, objects = torch.tensor([[2.0, 3, 10, 11], [1, 0, 9, 8]]), torch.tensor([2, 0])
    parts = torch.stack([masks[2, 3:11, 2:10], masks[0, 0:8, 1:9]]).float()
    torch.testing.assert_close(mask_targets(masks, boxes, objects, 8), parts)
    means = parts.reshape(2, 4, 2, 4, 2).mean(dim=(2, 4))
    torch.testing.assert_close(mask_targets(masks, boxes, objects, 4), means)
    pasted = paste_masks(parts[:, None], boxes, (12, 14))
    torch.testing.assert_close(pasted[0, 0, 3:11, 2:10], parts[0])


def test_mask_loss_uses_each_boxs_class():
    logits = torch.randn(3, 4, 2, 2, generator=torch.Generator().manual_seed(0))
    masks = torch.ones(1, 8, 8, dtype=torch.uint8)
    masks[:, :, 4:] = 0
    boxes = [torch.tensor([[0.0, 0, 8, 8]]), torch.tensor([[0.0, 0, 4, 4], [4, 4, 8, 8]])]
    halves, full, empty = torch.tensor([[1.0, 0], [1, 0]]), torch.ones(2, 2), torch.zeros(2, 2)
    chosen = torch.stack([logits[0, 3], logits[1, 1], logits[2, 2]]).sigmoid()
    expected = binary_cross_entropy(chosen, torch.stack([halves, full, empty]))
    labels, objects = [torch.tensor([3]), torch.tensor([1, 2])], [torch.tensor([0]), torch.tensor([0, 0])]
    # for cells of 2x2 pixels or more, all samples lie inside the cell
    torch.testing.assert_close(mask_loss(logits, [{"masks": masks}] * 2, boxes, labels, objects), expected)
    none = [torch.zeros(0, 4)], [torch.zeros(0).long()], [torch.zeros(0).long()]
    assert mask_loss(logits[:0], [{"masks": masks}], *none) == 0


@pytest.mark.usefixtures("narrow_networks")
def test_everything_but_the_mask_loss_is_torchvisions():
    torch.manual_seed(0)
    ours = new_detector("mask_rcnn_fpn", NARROW, 4, inference=SMALL).roi_heads
    parts = ours.box_roi_pool, ours.box_head, ours.box_predictor, 0.5, 0.5, 16, 0.25, None, 0.0, 0.5, 5
    theirs = RoIHeads(*parts, ours.mask_roi_pool, ours.mask_head, ours.mask_predictor)
    features = {str(level): torch.rand(1, 16, 64 // 2**level, 64 // 2**level) for level in range(4)}
    boxes = torch.tensor([[8.0, 16, 104, 112], [100, 30, 230, 200]])
    masks = torch.zeros(2, 256, 256, dtype=torch.uint8)
    masks[0, 20:100, 10:90] = 1
    masks[1, 40:180, 110:210] = 1
    target = {"boxes": boxes, "labels": torch.tensor([1, 3]), "masks": masks}
    proposals = [torch.cat([boxes + 4, torch.rand(20, 4).cumsum(1) * 60])]
    losses = []
    for heads in (ours, theirs):
        torch.manual_seed(1)
        found, loss = heads.train()(features, proposals, [(256, 256)], [target])
        assert found == []
        losses.append(loss)
    assert losses[0].keys() == losses[1].keys()
    for name in ("loss_classifier", "loss_box_reg"):
        assert losses[0][name] == losses[1][name]
    assert losses[0]["loss_mask"] != losses[1]["loss_mask"]
    with torch.no_grad():
        (one,), _ = ours.eval()(features, proposals, [(256, 256)])
        (other,), _ = theirs.eval()(features, proposals, [(256, 256)])
    for field in ("boxes", "scores", "labels", "masks"):
        assert torch.equal(one[field], other[field])


@pytest.mark.usefixtures("narrow_networks")
@pytest.mark.parametrize("name", ["mask_rcnn_fpn", "mask_rcnn_c4"])
def test_fresh_masks_start_at_a_half_with_small_gradients(name):
    """torchvision's initial weights are largest with one class. In Detectron2 the last layer's have an SD of 0.001."""
    predictor = new_detector(name, NARROW, 2).roi_heads.mask_predictor
    features = torch.rand(4, predictor.conv5_mask.in_channels, 5, 5, generator=torch.Generator().manual_seed(0))
    logits = predictor(features.requires_grad_())
    assert logits.abs().max() < 0.1
    assert predictor.mask_fcn_logits.weight.std().item() == pytest.approx(0.001, rel=0.5)
    logits.sum().backward()
    assert 0 < features.grad.abs().max() < 0.05
