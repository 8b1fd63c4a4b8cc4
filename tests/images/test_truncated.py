import re

import pytest

from socodet.images.truncated import TruncatedImages


@pytest.mark.parametrize("count", [1, 2, 1200])
def test_truncated_images_are_counted_and_the_first_is_named(count: int, capsys: pytest.CaptureFixture[str]) -> None:
    counter = TruncatedImages()
    for index in reversed(range(count)):
        counter.add(f"{index:04}.jpg")
    counter.report()
    said = capsys.readouterr().err
    assert re.search(rf"(?<!\d){count:,} .*JPEG{'' if count == 1 else 's'}\b", said)
    assert "first: 0000.jpg" in said
    counter.report()
    assert not capsys.readouterr().err
