import os
import pickle

import pytest

from socodet.images.names import Names

TEXTS = ["a.jpg", "", "unterwegs/größe 語.png", "deep/b c.jpg", "z"]


def test_names_behave_like_a_sequence_of_strings() -> None:
    names = Names(TEXTS)
    assert list(names) == TEXTS
    assert len(names) == 5
    assert names[-1] == "z"
    assert list(names[1:4]) == TEXTS[1:4]
    assert "z" in names
    for index in (5, -6):
        with pytest.raises(IndexError):
            names[index]
    assert list(Names([])) == []


def test_names_can_be_sent_to_another_process() -> None:
    names = Names(TEXTS)
    assert pickle.loads(pickle.dumps(names)) == names
    assert names != Names(["a.jpg", "", "z"])
    assert Names(["ab", "c"]) != Names(["a", "bc"])


def test_file_names_that_are_not_utf8_are_kept() -> None:
    texts = [*TEXTS, os.fsdecode(b"latin\xe9.jpg")]
    names = Names(texts)
    assert list(names) == names[:] == texts
    assert names[-1] == texts[-1]
    assert pickle.loads(pickle.dumps(names)) == names
    assert names != Names(TEXTS)


def test_any_text_is_kept() -> None:
    texts = ["half of a pair \ud800", os.fsdecode(b"latin\xe9.jpg"), "\U0001f600"]  # JSON allows it as an id
    assert list(Names(texts)) == texts


def test_many_names_are_small_and_fast_to_pickle() -> None:
    texts = [f"n0{i // 100:07d}/n0{i:012d}.JPEG" for i in range(20_000)]
    assert len(pickle.dumps(Names(texts))) < sum(map(len, texts)) + 8 * len(texts) + 1000
