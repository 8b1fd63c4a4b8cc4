"""Probing a run: the right network and features, the command, and the log of a run probed during training."""

import dataclasses
import json
import shutil
import signal

import numpy as np
import pytest
import torch
from narrow_models import NARROW
from photograph_sets import coco_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torchvision.ops import roi_align

import socodet
from socodet.cli import main
from socodet.detection.datasets.layouts import open_detection_set
from socodet.errors import InputError
from socodet.images.photographs import photographs
from socodet.models.architectures import build_encoder
from socodet.models.normalization import normalize
from socodet.models.soco import build_soco
from socodet.pretraining import pretrain as pretraining
from socodet.pretraining.recipes import recipe
from socodet.probing import features
from socodet.probing.features import box_encoder, object_features
from socodet.probing.probe import difference_error, probe
from socodet.probing.samples import ProbeDataset, probed_objects
from socodet.proposals.settings import ProposalSettings
from socodet.runtime.progress import progress_bar
from socodet.training.run_folder import RunFolder
from socodet.training.settings import ExecutionSettings
from socodet.views.batch import group_by_level

pytestmark = pytest.mark.usefixtures("narrow_networks")

TINY = dataclasses.replace(recipe("tiny"), model=NARROW)
TRAIN, VAL = ("astronaut", "hopper", "chelsea", "rocket"), ("cameraman", "raccoon")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """train.json and val.json of the photographs, a proposal table, and a four-step run with probes during training."""
    folder = tmp_path_factory.mktemp("probe")
    coco_file(folder / "train.json", TRAIN)
    coco_file(folder / "val.json", VAL)
    grid = ProposalSettings(method="grid")
    socodet.propose(photographs(), folder / "proposals.parquet", settings=grid, workers=1, show_progress=False)
    pretrain(folder, "run", probe_every=0.5, probe_data=folder)
    return folder


def pretrain(folder, name, **keywords):
    short = dataclasses.replace(TINY.training, batch_size=4, epochs=4 / 3, warmup_epochs=0.0)
    return pretraining.pretrain(
        photographs(),
        dataclasses.replace(TINY, training=short),
        folder / name,
        proposals=folder / "proposals.parquet",
        execution=ExecutionSettings(device="cpu", workers=0, log_every=1),
        show_progress=False,
        **keywords,
    )


def probe_samples_of(folder, split):
    dataset = open_detection_set(folder / f"{split}.json")
    objects, _ = probed_objects(dataset)
    return ProbeDataset(dataset, objects, 96, TINY.sample, all_views=True)


def features_of(encoder, probe_samples):
    with progress_bar("", len(probe_samples), show=False) as progress:
        return object_features(encoder, probe_samples, 0, progress)


def test_features_of_a_batch_equal_those_of_single_images(files):
    encoder, probe_samples = box_encoder(TINY.model, None, seed=3), probe_samples_of(files, "train")
    found = features_of(encoder, probe_samples)
    alone = {"plain": [], "half": [], "other": []}
    for place in range(len(probe_samples)):
        for name, vectors in alone.items():
            view = getattr(probe_samples[place], name)
            rois = group_by_level(view.boxes[None], view.levels[None])
            with torch.no_grad():
                vectors.append(encoder(normalize(view.pixels[None]), rois))
    for name, vectors in alone.items():
        torch.testing.assert_close(getattr(found, name), torch.cat(vectors), rtol=1e-4, atol=1e-5)
    assert found.labels.tolist() == [2, 3, 2, 1, 3]  # the astronaut's image has two objects
    assert len(found.other) == int(found.in_other.sum())


def test_probing_the_backbone_of_a_c4_network_is_refused():
    model = dataclasses.replace(TINY.model, architecture="c4")
    with pytest.raises(InputError, match="--of head"):
        box_encoder(model, None, backbone_alone=True)


def test_an_untrained_encoder_equals_the_start_of_a_run_with_its_seed():
    before = torch.get_rng_state()
    for model in (TINY.model, dataclasses.replace(TINY.model, architecture="image")):
        begun = build_soco(model, 5).online.encoder.state_dict()
        ours = box_encoder(model, None, 5).state_dict()
        assert begun.keys() == ours.keys()
        assert all(torch.equal(value, ours[name]) for name, value in begun.items())
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("architecture", ["image", "fpn"])
def test_backbone_features_of_a_box_are_its_mean_over_c5(files, architecture):
    model = dataclasses.replace(TINY.model, architecture=architecture)
    network = build_encoder(model).eval()
    probe_samples = probe_samples_of(files, "val")
    alone = architecture != "image"
    found = features_of(box_encoder(model, network.state_dict(), backbone_alone=alone), probe_samples)
    expected = []
    for place in range(len(probe_samples)):
        view = probe_samples[place].plain
        with torch.no_grad():
            c5 = network.backbone["body"](normalize(view.pixels[None]))["3"]
        expected.append(roi_align(c5, [view.boxes], 7, 1 / 32, aligned=True).mean(dim=(2, 3)))
    torch.testing.assert_close(found.plain, torch.cat(expected), rtol=1e-4, atol=1e-5)


def test_a_run_is_probed_during_training(files):
    lines = [line for line in RunFolder(files / "run").log_lines() if "probe_knn" in line]
    assert [line["step"] for line in lines] == [2, 3, 4]  # 4 steps are 4/3 epochs: at 1/2, at 1, at the end
    scores = probe(files / "run", files, workers=0, show_progress=False)["pretrained"]
    assert lines[-1] == {"step": 4, **scores.metrics()}
    assert lines[0]["probe_scale_cosine"] != lines[-1]["probe_scale_cosine"]
    events = EventAccumulator(str(files / "run" / "tensorboard")).Reload()
    assert [event.step for event in events.Scalars("probe_linear")] == [2, 3, 4]

    pretrain(files, "unwatched")
    one, other = (RunFolder(files / name).load_checkpoint()["model"] for name in ("run", "unwatched"))
    assert all(torch.equal(value, other[name]) for name, value in one.items())


@pytest.mark.parametrize("probed_again", [True, False])
def test_a_probe_that_a_signal_stops_is_repeated_on_resume(files, tmp_path, monkeypatch, probed_again):
    """A probe takes minutes on large datasets; a job that is about to end has seconds to save its checkpoint."""
    encode, calls = features._encode, []

    def interrupted(*some):
        if not calls:
            signal.raise_signal(signal.SIGTERM)
        calls.append(some)
        return encode(*some)

    shutil.copy(files / "proposals.parquet", tmp_path)
    probing = {"probe_every": 0.5, "probe_data": files}
    with monkeypatch.context() as patch:
        patch.setattr(features, "_encode", interrupted)
        stopped = pretrain(tmp_path, "run", **probing)
    assert (stopped.steps, stopped.stopped_by, stopped.pending, stopped.finished) == (2, "SIGTERM", True, False)
    assert len(calls) == 3  # the views of the training images, which make one batch; no validation image
    resumed = pretrain(tmp_path, "run", **(probing if probed_again else {}))
    assert (resumed.steps, resumed.stopped_by, resumed.finished) == (4, None, True)
    probes = [
        [line for line in RunFolder(run).log_lines() if "probe_knn" in line] for run in (files / "run", resumed.run)
    ]
    assert probes[1] == (probes[0] if probed_again else [])


def test_the_command_prints_a_table_and_writes_json(files, tmp_path, capsys):
    output = tmp_path / "scores.json"
    flags = ["--workers", "0", "--device", "cpu", "--untrained", "--output", str(output)]
    main(["probe", str(files / "run"), "--data", str(files), *flags])
    table = capsys.readouterr().out
    written = json.loads(output.read_text())
    assert written["pretrained"] == probe(files / "run", files, workers=0, show_progress=False)["pretrained"].as_dict()
    assert written["untrained"]["scale_cosine"] != written["pretrained"]["scale_cosine"]
    assert written["pretrained"]["train"]["objects"] == 5
    assert written["pretrained"]["size"] == 96
    knn = next(line for line in table.splitlines() if line.startswith("kNN"))
    assert knn.split()[-2:] == [f"{100 * written[name]['knn']:.1f}" for name in ("pretrained", "untrained")]
    assert "validation: 2 objects in 2 images" in table


@pytest.mark.parametrize(("one", "other", "objects"), [(0.4, 0.7, 50), (0.21, 0.22, 143), (0.97, 0.77, 900)])
def test_the_error_of_a_difference_is_its_spread_by_chance(one, other, objects):
    generator = np.random.default_rng(0)
    first, second = (generator.binomial(objects, share, 20_000) / objects for share in (one, other))
    assert difference_error(one, other, objects) == pytest.approx((first - second).std(), rel=0.05)


def test_comparing_two_networks_states_the_error_by_chance(files):
    both = probe(files / "run", files, untrained=True, workers=0, show_progress=False)
    alone = probe(files / "run", files, workers=0, show_progress=False)
    assert len(str(both).splitlines()) == len(str(alone).splitlines()) + 1  # the error by chance for two objects
    # by hand: 3 of 4 and 1 of 4
    assert difference_error(1.0, 0.0, 2) == pytest.approx((2 * 3 / 4 * 1 / 4 / 4) ** 0.5)


def test_the_untrained_network_is_said_to_lack_a_runs_initial_weights(files, tmp_path):
    run = shutil.copytree(files / "run", tmp_path / "run")
    described = json.loads((run / "run.json").read_text()) | {"start": {"from": "imagenet.pth"}}
    (run / "run.json").write_text(json.dumps(described))
    both, alone = (probe(run, files, untrained=one, workers=0, show_progress=False) for one in (True, False))
    assert "imagenet.pth" in str(both).splitlines()[-1]
    assert "imagenet.pth" not in str(alone)


def test_impossible_probes_are_one_line(files, tmp_path):
    with pytest.raises(InputError, match="workers must be at least 0, not -1"):
        probe(files / "run", files, workers=-1)
    detector = RunFolder(tmp_path / "det")
    detector.write_description({"recipe": {"name": "finetune"}})
    with pytest.raises(InputError, match="fine-tuning run"):
        socodet.probe(detector.path, files)
    with pytest.raises(InputError, match=r"train\.json: has no validation split"):
        probe(files / "run", files / "train.json")
    with pytest.raises(InputError, match="not a run"):
        probe(tmp_path, files)
    pretrain_arguments = (photographs(), TINY, tmp_path / "new")
    with pytest.raises(InputError, match="--probe-every and --probe-data need each other"):
        pretraining.pretrain(*pretrain_arguments, probe_every=1.0)
    with pytest.raises(InputError, match="--probe-every must be above 0"):
        pretraining.pretrain(*pretrain_arguments, probe_every=0.0, probe_data=files)
    alone = tmp_path / "alone"  # without a validation split
    alone.mkdir()
    shutil.copy(files / "train.json", alone)
    (alone / ".photographs").symlink_to(files / ".photographs")
    for path in (files / "train.json", alone):
        with pytest.raises(InputError, match=r"--probe-data takes a folder with.*socodet convert"):
            pretraining.pretrain(*pretrain_arguments, probe_every=1.0, probe_data=path)
    assert not (tmp_path / "new").exists()
