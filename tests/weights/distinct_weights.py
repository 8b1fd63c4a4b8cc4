"""Runs in which every tensor differs from a fresh one, and a check of a detector filled from such a run."""

import torch

from socodet.models.architectures import build_encoder
from socodet.models.settings import ModelSettings
from socodet.models.soco import SoCo
from socodet.pretraining.recipes import Recipe
from socodet.runtime.serialization import to_json
from socodet.training.run_folder import RunFolder
from socodet.weights.load import load_pretrained

R18 = ModelSettings(
    backbone="resnet18",
    fpn_channels=16,
    head_channels=16,
    representation_size=24,
    hidden_size=8,
    embedding_size=4,
)


def a_run(path, settings):
    """Makes a run folder with one checkpoint in which every tensor differs from a fresh one."""
    torch.manual_seed(7)
    soco = SoCo(build_encoder(settings), settings)
    with torch.no_grad():
        for tensor in soco.state_dict().values():
            tensor.copy_(torch.randn_like(tensor) if tensor.is_floating_point() else torch.tensor(5))
        for name, tensor in soco.state_dict().items():
            if name.endswith("running_var"):
                tensor.abs_().add_(0.1)
    run = RunFolder(path)
    run.write_description({"recipe": to_json(Recipe("custom", model=settings))})
    run.save_checkpoint(1, {"step": 1, "model": soco.state_dict()})
    return soco


def assert_filled(detector, file, soco):
    """Asserts that backbone, pyramid and box head are the online network's, and the rest is unchanged."""
    before = {name: value.clone() for name, value in detector.state_dict().items()}
    report = load_pretrained(detector, file)
    after = detector.state_dict()
    pretrained = [n for n in before if n.startswith(("backbone.body.", "backbone.fpn.", "roi_heads.box_head."))]
    assert set(report.loaded) == set(pretrained)
    assert report.fresh_modules.keys() == {
        *("rpn.head", "roi_heads.box_predictor"),
        *("roi_heads.mask_head", "roi_heads.mask_predictor"),
    }
    online = soco.online.encoder.state_dict()
    for name in pretrained:
        assert torch.equal(after[name], online[name.removeprefix("roi_heads.")]), name
    for name in report.fresh:
        assert torch.equal(after[name], before[name]), name
