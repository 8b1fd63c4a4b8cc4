import pickle

import numpy as np
import pytest
from hand_made_sets import made_set, picture

from socodet.detection.datasets.packed import Packed


def test_a_sequence_like_another():
    items = ["a", {"b": np.arange(3)}, None, [1, 2]]
    packed = Packed.of(items)
    assert len(packed) == 4
    assert (packed[0], packed[2], packed[-1]) == ("a", None, [1, 2])
    assert packed[1]["b"].tolist() == [0, 1, 2]
    assert list(packed[::-1])[::3] == [[1, 2], "a"]
    assert list(packed.take([3, 0, 3])) == [[1, 2], "a", [1, 2]]
    with pytest.raises(IndexError):
        packed[4]
    assert list(Packed.of([])) == []


def test_a_packed_set_is_the_same_set_in_one_block():
    ours = made_set([picture(k, [(1, 1, 5 + k, 9, 1)] * 50) for k in range(40)], "coco")
    packed = ours.packed()
    assert [image.boxes.tolist() for image in packed.images] == [image.boxes.tolist() for image in ours.images]
    assert [image.image_id for image in packed.select([7, 2], "two").images] == [7, 2]
    assert packed.target(3)["boxes"].tolist() == ours.target(3)["boxes"].tolist()
    again = pickle.loads(pickle.dumps(packed, 5))
    assert again.images[5].image_id == 5
    buffers: list[pickle.PickleBuffer] = []
    assert len(pickle.dumps(packed, 5, buffer_callback=buffers.append)) < 3000  # the rest is three blocks
    assert len(buffers) == 3
