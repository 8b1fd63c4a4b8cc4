"""RT-DETR's loss worked out by hand, and its gradients against the authors' decoder."""

import pytest
import torch
from narrow_models import NARROW
from torch.nn.functional import sigmoid

from socodet.detection.detectors.rt_detr_loss import float32_loss, look_forward_twice
from socodet.models.rt_detr import depth_of, rt_detr_config

OBJECT = [0.5, 0.5, 0.2, 0.2]
BESIDE, FURTHER = [0.6, 0.5, 0.2, 0.2], [0.8, 0.5, 0.2, 0.2]
LABELS = [{"class_labels": torch.tensor([1]), "boxes": torch.tensor([OBJECT])}]


def test_denoising_queries_take_no_object_from_detection_queries():
    """The denoising queries lie exactly on the object with high scores; one of the others is 0.1 away in x."""
    boxes = torch.tensor([[OBJECT, OBJECT, BESIDE, FURTHER]] * 2)[None]
    logits = torch.zeros(1, 2, 4, 3)
    logits[:, :, :2, 1] = 9
    noise = {"dn_positive_idx": (torch.tensor([0]),), "dn_num_group": 1, "dn_num_split": [2, 2]}
    rest = {"enc_topk_logits": logits[:, -1, 2:], "enc_topk_bboxes": boxes[:, -1, 2:], "denoising_meta_values": noise}
    config = rt_detr_config(depth_of(NARROW.backbone), num_labels=3)
    loss, by_name, _ = float32_loss(
        logits[:, -1], LABELS, torch.device("cpu"), boxes[:, -1], config, logits, boxes, **rest
    )
    for layer in ("", "_aux_0", "_aux_1"):  # last layer, first layer, encoder
        assert by_name[f"loss_bbox{layer}"].item() == pytest.approx(5 * 0.1)
        assert by_name[f"loss_giou{layer}"].item() == pytest.approx(2 * (1 - 1 / 3), rel=1e-5)
    assert {by_name[f"loss_bbox_dn_{layer}"].item() for layer in (0, 1)} == {0}
    assert loss.item() == pytest.approx(sum(part.item() for part in by_name.values()))


def test_boxes_and_gradients_match_the_authors_decoder():
    """The loop of `TransformerDecoder` in their rtdetrv2_decoder.py, for given layer outputs."""
    generator = torch.Generator().manual_seed(0)
    moves = torch.randn(3, 1, 5, 4, generator=generator).requires_grad_()
    first = torch.rand(1, 5, 4, generator=generator)
    theirs, reference, ours = [], first, []
    for layer, move in enumerate(moves):
        box = sigmoid(move + torch.logit(reference.detach(), eps=1e-5))
        theirs.append(box if layer == 0 else sigmoid(move + torch.logit(reference, eps=1e-5)))
        ours.append(box)
        reference = box
    found, wanted = look_forward_twice(torch.stack(ours, dim=1)), torch.stack(theirs, dim=1)
    torch.testing.assert_close(found, wanted)
    weights = torch.rand(found.shape, generator=generator)
    gradients = [torch.autograd.grad((weights * boxes).sum(), moves, retain_graph=True)[0] for boxes in (found, wanted)]
    torch.testing.assert_close(*gradients)
