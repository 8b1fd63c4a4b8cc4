"""CVAT's XML of a video, "CVAT for video 1.1", beside the frames that CVAT exports with it."""

import numpy as np
import pytest
from tool_files import image, text

from socodet.detection.datasets.layouts import open_detection_set
from socodet.errors import InputError

META = (
    "<{0}><id>7</id><size>5</size><mode>interpolation</mode><start_frame>{1}</start_frame><stop_frame>{2}</stop_frame>"
    "<frame_filter>{3}</frame_filter><labels><label><name>dog</name><type>any</type></label></labels></{0}>{4}"
)
SIZE = "<original_size><width>400</width><height>266</height></original_size>"
SHAPE = (
    '<box frame="{0}" keyframe="0" outside="{1}" occluded="0" xtl="{2}" ytl="20" xbr="{3}" ybr="50" z_order="0"></box>'
)


def track(*shapes, label="cat", more=""):
    """Shapes are (frame, left, right), or (frame,) where the object is outside the image."""
    inside = "".join(SHAPE.format(at, int(not x), *(x or (1, 2))) for at, *x in shapes)
    return f'<track id="0" label="{label}" source="manual"{more}>{inside}</track>'


def write(root, *tracks, frames=range(5), meta=META.format("task", 0, 4, "", SIZE)):
    for at in frames:
        image("chelsea", root / "images" / f"frame_{at:06d}.PNG")
    (root / "images").mkdir(parents=True, exist_ok=True)
    head = f'<?xml version="1.0" encoding="utf-8"?>\n<annotations>\n  <version>1.1</version>\n  <meta>{meta}</meta>'
    text(root / "annotations.xml", f"{head}{''.join(tracks)}\n</annotations>")
    return root


def boxes(data):
    """By frame: class, left and right of each object."""
    return {
        int(one.file.stem.removeprefix("frame_")): [
            (data.categories[k - 1].name, *np.round(sides[[0, 2]], 2).tolist())
            for k, sides in zip(one.labels, one.boxes, strict=True)
        ]
        for one in data.images
    }


def read(root):
    return open_detection_set(root, split="all", check_images=True)


CAT = track((1, 10, 60), (2, 12, 62), (3,))


def test_each_frame_has_the_shapes_that_tracks_show_there(tmp_path):
    data = read(write(tmp_path, CAT, track((2, 100, 150), (3, 101, 151), (4, 102, 152), label="dog")))
    assert boxes(data) == {
        0: [],
        1: [("cat", 10, 60)],
        2: [("cat", 12, 62), ("dog", 100, 150)],
        3: [("dog", 101, 151)],
        4: [("dog", 102, 152)],
    }
    assert not data.problems
    assert data.images[0].boxes.dtype == np.float32


@pytest.mark.parametrize("kind", ["task", "job"])
def test_frames_are_numbered_as_in_the_video(tmp_path, kind):
    meta = META.format(kind, 10, 16, "step=3", "") + SIZE  # a job's size is beside it
    data = read(write(tmp_path, track((10, 10, 60), (13, 11, 61), (16, 12, 62)), frames=(10, 13, 16), meta=meta))
    assert boxes(data) == {10: [("cat", 10, 60)], 13: [("cat", 11, 61)], 16: [("cat", 12, 62)]}


def test_frames_that_a_track_skips_are_left_out(tmp_path):
    """Their objects are unknown: the file has only key frames, or CVAT's user deleted these frames."""
    data = read(write(tmp_path, track((0, 10, 60), (3, 16, 66), (4,))))
    assert boxes(data) == {0: [("cat", 10, 60)], 3: [("cat", 16, 66)], 4: []}


@pytest.mark.parametrize(("shapes", "frames"), [([0], [0]), ([0, 1, 2], [0, 1, 2]), ([2, 3], [0, 1, 2, 3, 4])])
def test_frames_after_a_track_that_does_not_end_are_left_out(tmp_path, shapes, frames):
    """Its object may be there. But CVAT does not end a single shape on the last frame but one."""
    data = read(write(tmp_path, track(*((at, 10, 60) for at in shapes))))
    assert boxes(data) == {at: [("cat", 10, 60)] * (at in shapes) for at in frames}


def test_a_shape_after_the_last_frame_is_ignored(tmp_path):
    data = read(write(tmp_path, track((3, 10, 60), (4, 11, 61), (5, 12, 62))))
    assert boxes(data) == {0: [], 1: [], 2: [], 3: [("cat", 10, 60)], 4: [("cat", 11, 61)]}


def test_shapes_of_a_group_are_one_object(tmp_path):
    parts = [track((0, x, x + 50), (1,), more=' group_id="2"') for x in (10, 100)]
    assert boxes(read(write(tmp_path, *parts)))[0] == [("cat", 10, 150)]


@pytest.mark.parametrize(
    ("how", "what"),
    [
        ({"frames": range(1, 6)}, "frame_000005.PNG: is none of the frames 0 to 4"),  # ffmpeg counts from 1
        ({"frames": range(2)}, "frame_000002.PNG has shapes and is missing"),  # a tool extracted one frame a second
        ({"frames": ()}, "none of its"),
        ({"meta": META.format("task", 0, 4, "", "")}, "CVAT for video.*CVAT for images 1.1"),  # of images
        ({"meta": META.format("task", 0, 4, "other", SIZE)}, "CVAT for video.*CVAT for images 1.1"),
        ({"meta": META.format("task", "", "", "", SIZE)}, "CVAT for video.*CVAT for images 1.1"),
        ({"meta": META.format("task", 0, 10**8, "", SIZE)}, "CVAT for video.*CVAT for images 1.1"),
        ({"meta": f"<project><tasks>{META.format('task', 0, 4, '', SIZE)}</tasks></project>"}, "CVAT for video"),
        ({"meta": f'{META.format("task", 0, 4, "", SIZE)}</meta><image name="a.jpg"/><meta>'}, "CVAT for video"),
        ({"meta": META.format("task", 0, 4, "step=2", SIZE)}, "frame '1' of track 0 is none of the video's frames"),
    ],
)
def test_frames_that_may_be_others_are_refused(tmp_path, how, what):
    with pytest.raises(InputError, match=what) as caught:
        read(write(tmp_path, CAT, **how))
    assert "\n" not in str(caught.value)
