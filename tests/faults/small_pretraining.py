"""The smallest pretraining run possible through the public function."""

import dataclasses

import socodet
from socodet.images.photographs import photographs
from socodet.pretraining.recipes import recipe
from socodet.proposals.settings import ProposalSettings
from socodet.training.settings import ExecutionSettings

NARROW = {"fpn_channels": 8, "head_channels": 8, "representation_size": 8, "hidden_size": 8, "embedding_size": 8}
GRID = ProposalSettings(method="grid")


def make_images(folder, count=4):
    """Makes `count` photographs and a table of their proposals."""
    (folder / "images").mkdir()
    for path in sorted(photographs().glob("*.jpg"))[:count]:
        (folder / "images" / path.name).write_bytes(path.read_bytes())
    socodet.propose(folder / "images", folder / "table.parquet", settings=GRID, workers=1, show_progress=False)


def go(files, name, steps, *, proposals=None, seed=0, batch_size=4, count=None, sinks=(), workers=0, **execution):
    """Pretrains or resumes the run `name` up to `steps`; `count` is the number of images, by default all of them."""
    tiny = recipe("tiny")
    epochs = steps * batch_size / (count or len(list((files / "images").iterdir())))
    training = dataclasses.replace(
        tiny.training, batch_size=batch_size, epochs=epochs, warmup_epochs=min(1.0, epochs), base_lr=0.1, seed=seed
    )
    views = tuple(dataclasses.replace(view, size=32) for view in tiny.sample.views)
    chosen = dataclasses.replace(
        tiny,
        training=training,
        sample=dataclasses.replace(tiny.sample, views=views),
        model=dataclasses.replace(tiny.model, backbone="timm/test_resnet", **NARROW),
    )
    return socodet.pretrain(
        files / "images",
        chosen,
        files / name,
        proposals=proposals or files / "table.parquet",
        execution=ExecutionSettings(device="cpu", workers=workers, **execution),
        sinks=sinks,
        show_progress=False,
        resume=True,
    )
