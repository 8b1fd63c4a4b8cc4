import hashlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from socodet.cli import main
from socodet.errors import InputError
from socodet.images import pack as packing
from socodet.images.decode import decode_image
from socodet.images.pack import PackSettings, pack
from socodet.images.photographs import photographs
from socodet.images.source import open_images

PHOTOGRAPHS = sorted(photographs().glob("*.jpg"))
SETTINGS = PackSettings(size=64, shard_images=5)
UNREADABLE = {"a/torn.jpg", "text.png"}


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """22 images of many formats, two of them unreadable."""
    folder = tmp_path_factory.mktemp("images")
    (folder / "a" / ("deep" * 30)).mkdir(parents=True)
    for number, path in enumerate(PHOTOGRAPHS):
        (folder / ("a" if number % 2 else "") / f"{number:02d}.jpg").write_bytes(path.read_bytes())
    photo = Image.open(PHOTOGRAPHS[0]).convert("RGB")
    photo.resize((90, 60)).save(folder / "small.jpg")
    photo.resize((64, 50)).convert("CMYK").save(folder / "small cmyk.JPG")
    photo.resize((60, 90)).save(folder / "größe.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    photo.resize((200, 100)).save(folder / "turned.jpg", exif=exif)
    photo.resize((50, 40)).save(folder / "turned small.jpg", exif=exif)
    photo.resize((150, 100)).convert("L").save(folder / "a" / "gray.tif")
    photo.resize((150, 100)).quantize(9).save(folder / "a" / ("deep" * 30) / "palette.gif")
    photo.resize((3, 200)).save(folder / "thin.png")
    (folder / "a/torn.jpg").write_bytes(PHOTOGRAPHS[1].read_bytes()[:300])
    (folder / "text.png").write_text("no image")
    return folder


def keys(folder: Path) -> list[str]:
    source = open_images(folder)
    return [source.key(index) for index in range(len(source))]


def digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.glob("[!.]*"))}


def through_jpeg(image: Image.Image, quality: int) -> np.ndarray:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality, subsampling="4:2:0")
    return np.asarray(Image.open(file))


def test_each_image_is_copied_shrunk_or_reported(folder: Path, tmp_path: Path) -> None:
    summary = pack(folder, tmp_path / "packed", settings=SETTINGS, show_progress=False)
    assert sorted(os.listdir(tmp_path)) == ["packed"]
    assert sorted(os.listdir(tmp_path / "packed")) == ["pack.json", *(f"shard-00000{n}.tar" for n in range(5))]
    source, packed = open_images(folder), open_images(tmp_path / "packed")
    before = {source.key(i): source.read(i) for i in range(len(source))}
    after = {packed.key(i): packed.read(i) for i in range(len(packed))}
    assert list(after) == [key for key in before if key not in UNREADABLE]
    copied = {key for key in after if after[key] == before[key]}
    assert copied == {"small.jpg", "small cmyk.JPG", "turned small.jpg"}
    for key in after.keys() - copied:
        upright = ImageOps.exif_transpose(Image.open(io.BytesIO(before[key]))).convert("RGB")
        shrink = min(1.0, 64 / min(upright.size))
        size = tuple(round(side * shrink) for side in upright.size)
        by_pil = through_jpeg(upright.resize(size, Image.Resampling.LANCZOS), quality=90)
        ours = decode_image(after[key])
        assert Image.open(io.BytesIO(after[key])).format == "JPEG"
        assert ours.shape == (size[1], size[0], 3)
        assert np.abs(ours.astype(int) - by_pil.astype(int)).mean() < 2.5, key
    assert decode_image(after["turned.jpg"]).shape == (128, 64, 3)
    assert min(decode_image(after["thin.png"]).shape[:2]) == 3
    assert (summary.images, summary.copied, summary.shards) == (20, 3, 5)
    assert summary.bytes == sum(path.stat().st_size for path in summary.output.glob("*.tar"))
    assert {key for key, _ in summary.unreadable} == UNREADABLE
    assert all("\n" not in why for _, why in summary.unreadable)
    record = json.loads((summary.output / "pack.json").read_text())
    settings = {"size": 64, "quality": 90, "shard_images": 5, "value_range": None, "bands": None}
    assert record["settings"] == {**settings, "max_pixels": 2**31}
    assert {key for key, _ in record["unreadable"]} == UNREADABLE
    assert record["images"] == 20


def test_a_large_jpeg_is_scaled_like_a_full_decode(tmp_path: Path) -> None:
    photo = Image.open(PHOTOGRAPHS[2]).convert("RGB").resize((1603, 1201), Image.Resampling.BICUBIC)
    (tmp_path / "in").mkdir()
    photo.save(tmp_path / "in/large.jpg", quality=95)
    settings = PackSettings(size=100, quality=97)
    packed = open_images(pack(tmp_path / "in", tmp_path / "out", settings=settings, show_progress=False).output)
    whole = Image.open(tmp_path / "in/large.jpg").resize((133, 100), Image.Resampling.LANCZOS)
    by_pil = through_jpeg(whole, quality=97)
    ours = decode_image(packed.read(0))
    assert ours.shape == (100, 133, 3)
    assert np.abs(ours.astype(int) - by_pil.astype(int)).mean() < 1.5


def test_quality_is_a_setting(folder: Path, tmp_path: Path) -> None:
    sizes = []
    for quality in (40, 90):
        settings = PackSettings(size=64, quality=quality)
        sizes.append(pack(folder, tmp_path / str(quality), settings=settings, show_progress=False).bytes)
    assert sizes[0] < sizes[1]


def test_tar_programs_read_the_shards(folder: Path, tmp_path: Path) -> None:
    output = pack(folder, tmp_path / "packed", settings=SETTINGS, show_progress=False).output
    names: list[str] = []
    for shard in sorted(output.glob("*.tar")):
        listed = subprocess.run(
            ["tar", "--quoting-style=literal", "-tf", shard], check=True, capture_output=True, text=True,
            env={**os.environ, "LC_ALL": "C.UTF-8"},
        )  # fmt: skip
        names += listed.stdout.splitlines()
        with tarfile.open(shard) as tar:
            assert all((m.mtime, m.uid, m.gid, m.uname, m.mode) == (0, 0, 0, "", 0o644) for m in tar)
    assert names == [key for key in keys(folder) if key not in UNREADABLE]


def test_the_bytes_do_not_depend_on_the_number_of_workers(folder: Path, tmp_path: Path) -> None:
    made = [
        digests(pack(folder, tmp_path / str(n), settings=SETTINGS, workers=n, show_progress=False).output)
        for n in (1, 2, 7)
    ]
    assert made[0] == made[1] == made[2]
    assert len(made[0]) == 6


def test_an_interrupted_call_resumes(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = pack(folder, tmp_path / "whole", settings=SETTINGS, show_progress=False)
    pack_one = packing._pack_one
    made: list[int] = []

    def interrupted(source, index, settings):
        if len(made) == 13:
            raise KeyboardInterrupt
        made.append(index)
        return pack_one(source, index, settings)

    monkeypatch.setattr(packing, "_pack_one", interrupted)
    with pytest.raises(KeyboardInterrupt):
        pack(folder, tmp_path / "p", settings=SETTINGS, workers=1, show_progress=False)
    assert not (tmp_path / "p").exists()
    made = []
    again = pack(folder, tmp_path / "p", settings=SETTINGS, workers=1, show_progress=False)
    assert made == list(range(10, 22))  # two shards of five images were complete
    assert digests(again.output) == digests(whole.output)
    assert again.unreadable == whole.unreadable
    assert sorted(os.listdir(tmp_path)) == ["p", "whole"]


def test_images_replaced_before_resuming_are_packed_anew(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One was in a complete shard; another could not be read and has been repaired."""
    own = tmp_path / "images"
    shutil.copytree(folder, own)
    pack_one = packing._pack_one

    def interrupted(source, index, settings):
        if index == 18:
            raise KeyboardInterrupt
        return pack_one(source, index, settings)

    monkeypatch.setattr(packing, "_pack_one", interrupted)
    with pytest.raises(KeyboardInterrupt):
        pack(own, tmp_path / "p", settings=SETTINGS, workers=1, show_progress=False)
    monkeypatch.undo()
    assert keys(own).index("02.jpg") < 5
    assert keys(own).index("a/torn.jpg") < 15
    for name in ("02.jpg", "a/torn.jpg"):
        (own / name).write_bytes(PHOTOGRAPHS[4].read_bytes())
    again = pack(own, tmp_path / "p", settings=SETTINGS, workers=1, show_progress=False)
    assert {key for key, _ in again.unreadable} == {"text.png"}
    assert digests(again.output) == digests(
        pack(own, tmp_path / "whole", settings=SETTINGS, show_progress=False).output
    )


HANGING_JOB = """
import sys, time
from socodet.images import pack as packing
pack_one = packing._pack_one
def hang(source, index, settings):
    if index == 12:
        time.sleep(100)
    return pack_one(source, index, settings)
packing._pack_one = hang
packing.pack(sys.argv[1], sys.argv[2], settings=packing.PackSettings(size=64, shard_images=5), workers=1)
"""


def test_a_killed_call_resumes(folder: Path, tmp_path: Path) -> None:
    job = subprocess.Popen(
        [sys.executable, "-c", HANGING_JOB, str(folder), str(tmp_path / "p")], stderr=subprocess.PIPE
    )
    give_up = time.monotonic() + 60
    while not list(tmp_path.glob(".p.*/shard-000001.json")):
        assert job.poll() is None, job.stderr.read()
        assert time.monotonic() < give_up
        time.sleep(0.01)
    os.kill(job.pid, signal.SIGKILL)
    job.communicate()
    assert not (tmp_path / "p").exists()
    (parts,) = tmp_path.glob(".p.*")
    kept = {path.name: path.stat().st_mtime_ns for path in parts.glob("shards/shard-00000[01].tar")}
    assert len(kept) == 2
    resumed = pack(folder, tmp_path / "p", settings=SETTINGS, show_progress=False).output
    assert {name: (resumed / name).stat().st_mtime_ns for name in kept} == kept
    whole = pack(folder, tmp_path / "whole", settings=SETTINGS, show_progress=False).output
    assert digests(resumed) == digests(whole)


def test_a_concurrent_call_is_refused(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pack_one, refused = packing._pack_one, []

    def meanwhile(source, index, settings):
        if index == 7:
            with pytest.raises(InputError, match="another process is writing"):
                pack(folder, tmp_path / "packed", settings=SETTINGS, show_progress=False)
            refused.append(index)
        return pack_one(source, index, settings)

    pack(folder, tmp_path / "alone", settings=SETTINGS, show_progress=False)
    monkeypatch.setattr(packing, "_pack_one", meanwhile)
    pack(folder, tmp_path / "packed", settings=SETTINGS, show_progress=False)
    assert refused
    alone, packed = (
        {path.name: path.read_bytes() for path in (tmp_path / name).iterdir()} for name in ("alone", "packed")
    )
    assert alone == packed
    assert {path.name for path in tmp_path.iterdir()} == {"alone", "packed"}


def test_output_that_another_job_wrote_meanwhile_is_kept(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pack_one, other = packing._pack_one, PackSettings(size=32)
    output = tmp_path / "packed"

    def meanwhile(source, index, settings):
        if index == 7 and settings == SETTINGS:
            pack(folder, output, settings=other, show_progress=False)
        return pack_one(source, index, settings)

    monkeypatch.setattr(packing, "_pack_one", meanwhile)
    with pytest.raises(InputError, match="exists"):
        pack(folder, output, settings=SETTINGS, show_progress=False)
    assert json.loads((output / "pack.json").read_text())["settings"]["size"] == 32


def test_a_shard_changed_while_being_written_is_discarded(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Cut(tarfile.TarFile):
        def close(self) -> None:
            super().close()
            (unfinished,) = tmp_path.glob(".packed.*/unfinished.*")
            os.truncate(unfinished, 512)

    monkeypatch.setattr(tarfile, "open", Cut.open)
    with pytest.raises(InputError, match="changed while"):
        pack(folder, tmp_path / "packed", settings=SETTINGS, show_progress=False)
    assert not list(tmp_path.rglob("*.tar"))


def test_a_damaged_shard_is_written_again(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = digests(pack(folder, tmp_path / "whole", settings=SETTINGS, show_progress=False).output)

    def interrupt(*arguments: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(packing.shutil, "rmtree", interrupt)
        patch.setattr(
            packing.os, "replace", lambda old, new: interrupt() if Path(new).name == "p" else replace(old, new)
        )
        with pytest.raises(KeyboardInterrupt):
            pack(folder, tmp_path / "p", settings=SETTINGS, show_progress=False)
    (shard,) = tmp_path.glob(".p.*/shards/shard-000002.tar")
    os.truncate(shard, 700)
    (noted,) = tmp_path.glob(".p.*/shard-000003.json")
    noted.write_text("{")
    assert digests(pack(folder, tmp_path / "p", settings=SETTINGS, show_progress=False).output) == whole


replace = os.replace


def test_shards_of_a_job_with_other_settings_are_not_reused(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pack_one = packing._pack_one

    def interrupted(source, index, settings):
        if index == 12:
            raise KeyboardInterrupt
        return pack_one(source, index, settings)

    with monkeypatch.context() as patch:
        patch.setattr(packing, "_pack_one", interrupted)
        with pytest.raises(KeyboardInterrupt):
            pack(folder, tmp_path / "p", settings=SETTINGS, show_progress=False)
    larger = PackSettings(size=80, shard_images=5)
    packed = open_images(pack(folder, tmp_path / "p", settings=larger, show_progress=False).output)
    assert min(decode_image(packed.read(0)).shape[:2]) == 80


def test_nothing_is_overwritten_unless_asked(folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "p"
    output.mkdir()  # an empty folder may exist
    pack(folder, output, settings=SETTINGS, show_progress=False)
    before = digests(output)
    with pytest.raises(InputError, match="p: exists; give another --output or pass --overwrite"):
        pack(folder, output, settings=PackSettings(size=32), show_progress=False)
    assert digests(output) == before
    pack(folder, output, settings=PackSettings(size=32), overwrite=True, show_progress=False)
    assert sorted(digests(output)) == ["pack.json", "shard-000000.tar"]
    assert sorted(os.listdir(tmp_path)) == ["p"]
    (tmp_path / "home").mkdir()
    (tmp_path / "home/letter.txt").write_text("dear")
    with pytest.raises(InputError, match="home: exists and is not a folder of packed images"):
        pack(folder, tmp_path / "home", overwrite=True, show_progress=False)
    with pytest.raises(InputError, match=r"letter\.txt: is a file"):
        pack(folder, tmp_path / "home/letter.txt", overwrite=True, show_progress=False)
    with pytest.raises(InputError, match=r"letter\.txt/p: cannot be written"):
        pack(folder, tmp_path / "home/letter.txt/p", show_progress=False)
    assert (tmp_path / "home/letter.txt").read_text() == "dear"


def test_an_output_that_is_a_link_remains_one(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "large/disk").mkdir(parents=True)
    for name, there in (("empty", True), ("dangling", False)):
        place, link = tmp_path / "large/disk" / name, tmp_path / name
        if there:
            place.mkdir()
        link.symlink_to(place)
        for overwrite in (False, True):
            pack(folder, link, settings=SETTINGS, overwrite=overwrite, show_progress=False)
            assert link.is_symlink()
            assert not place.is_symlink()
            assert len(open_images(link)) == 20
    assert sorted(os.listdir(tmp_path)) == ["dangling", "empty", "large"]
    assert sorted(os.listdir(tmp_path / "large/disk")) == ["dangling", "empty"]


def test_packing_packed_images_copies_them(folder: Path, tmp_path: Path) -> None:
    first = pack(folder, tmp_path / "1", settings=SETTINGS, show_progress=False)
    second = pack(first.output, tmp_path / "2", settings=SETTINGS, show_progress=False)
    assert second.copied == second.images == first.images
    assert not second.unreadable


def test_keys_without_an_image_suffix_get_one(tmp_path: Path) -> None:
    for name in ("one", "two.data"):
        (tmp_path / name).write_bytes(PHOTOGRAPHS[0].read_bytes())
    (tmp_path / "list.txt").write_text("one\ntwo.data\n")
    pack(tmp_path / "list.txt", tmp_path / "p", settings=SETTINGS, show_progress=False)
    assert keys(tmp_path / "p") == ["one.jpg", "two.data.jpg"]
    (tmp_path / "one.jpg").write_bytes(PHOTOGRAPHS[1].read_bytes())
    (tmp_path / "list.txt").write_text("one\none.jpg\n")
    with pytest.raises(InputError, match=r"has both one and one\.jpg"):
        pack(tmp_path / "list.txt", tmp_path / "q", show_progress=False)


@pytest.fixture
def beside(tmp_path: Path) -> Path:
    """A folder of lists and a COCO file that name two images called 1.jpg, beside the folder with these images."""
    for number, part in enumerate("ab"):
        (tmp_path / "set" / part).mkdir(parents=True)
        (tmp_path / "set" / part / "1.jpg").write_bytes(PHOTOGRAPHS[number].read_bytes())
    lists = tmp_path / "lists"
    lists.mkdir()
    (lists / "absolute.txt").write_text(f"{tmp_path}/set/a/1.jpg\n{tmp_path}/set/b/1.jpg\n")
    (lists / "beside.txt").write_text("../set/a/1.jpg\n../set/b/1.jpg\n")
    images = [{"id": number, "file_name": f"../set/{part}/1.jpg"} for number, part in enumerate("ab")]
    (lists / "coco.json").write_text(json.dumps({"images": images}))
    return lists


@pytest.mark.parametrize("named_in", ["absolute.txt", "beside.txt", "coco.json"])
def test_names_leading_out_of_a_shard_are_shortened(beside: Path, tmp_path: Path, named_in: str) -> None:
    packed = pack(beside / named_in, tmp_path / "p", settings=SETTINGS, show_progress=False)
    begin = f"{tmp_path}/"[1:] if named_in == "absolute.txt" else ""
    assert keys(packed.output) == [f"{begin}set/a/1.jpg", f"{begin}set/b/1.jpg"]
    for index, photograph in enumerate(PHOTOGRAPHS[:2]):
        alone = tmp_path / str(index)
        alone.mkdir()
        (alone / "1.jpg").write_bytes(photograph.read_bytes())
        expected = open_images(pack(alone, tmp_path / f"p{index}", settings=SETTINGS, show_progress=False).output)
        assert open_images(packed.output).read(index) == expected.read(0)


def test_images_that_would_share_a_name_in_a_shard_are_refused(beside: Path, tmp_path: Path) -> None:
    (beside / "set" / "a").mkdir(parents=True)
    (beside / "set" / "a" / "1.jpg").write_bytes(PHOTOGRAPHS[2].read_bytes())
    (beside / "both.txt").write_text("../set/a/1.jpg\nset/a/1.jpg\n")
    with pytest.raises(InputError, match=r"has both \.\./set/a/1\.jpg and set/a/1\.jpg, one name") as raised:
        pack(beside / "both.txt", tmp_path / "p", show_progress=False)
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "p").exists()


def test_nothing_readable_and_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.jpg").write_text("no image")
    with pytest.raises(InputError, match="none of its 1 images can be read"):
        pack(tmp_path / "in", tmp_path / "p", show_progress=False)
    assert [path.name for path in tmp_path.iterdir()] == ["in"]
    (tmp_path / "in/a.jpg").write_bytes(PHOTOGRAPHS[0].read_bytes())  # repaired
    assert pack(tmp_path / "in", tmp_path / "p", show_progress=False).images == 1

    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    (tmp_path / "in/b.jpg").write_bytes(PHOTOGRAPHS[0].read_bytes())
    shutil.rmtree(tmp_path / "p")
    with monkeypatch.context() as patch:
        patch.setattr(tarfile.TarFile, "addfile", full)
        with pytest.raises(InputError, match=r"p: cannot be written \(No space left on device\)"):
            pack(tmp_path / "in", tmp_path / "p", show_progress=False)
    assert pack(tmp_path / "in", tmp_path / "p", show_progress=False).images == 2


def test_an_image_too_long_for_a_jpeg_is_reported(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    Image.new("L", (70_000, 3)).save(tmp_path / "in/long.png")
    Image.new("L", (9, 9)).save(tmp_path / "in/short.png")
    ((key, why),) = pack(tmp_path / "in", tmp_path / "p", show_progress=False).unreadable
    assert key == "long.png"
    assert "70000x3 is too long" in why


@pytest.mark.parametrize("field", [{"size": 0}, {"quality": 0}, {"quality": 101}, {"shard_images": 0}])
def test_settings_are_checked(field: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=next(iter(field))):
        PackSettings(**field)


def test_the_command(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "p"
    flags = ["--size", "64", "--output", str(output), "--shard-images", "5", "--quality", "80", "--workers", "1"]
    main(["pack", str(folder), *flags])
    printed = capsys.readouterr()
    assert f"{output}: 20 images (3 unchanged) in 5 shards" in printed.out
    assert "2 images could not be read" in printed.err
    assert "  text.png: " in printed.err
    for argv, message in [
        (["pack", str(folder), *flags], "exists; give another"),
        (["pack", str(folder), *flags, "--size", "0"], "size must be at least 1"),
    ]:
        with pytest.raises(SystemExit) as ended:
            main(argv)
        assert ended.value.code == 2
        (line,) = capsys.readouterr().err.strip().splitlines()
        assert message in line
