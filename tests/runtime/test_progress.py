import re
import time

from socodet.runtime.progress import progress_bar


def test_time_left_does_not_count_what_was_done_earlier(capsys):
    with progress_bar("work", 100) as bar:
        bar.done_earlier(90)
        bar._last_line -= 60  # a line is due
        time.sleep(0.4)
        bar.advance(1)
    line = capsys.readouterr().err
    assert line.startswith("work: 91/100")
    left = re.search(r"(\d+) s left", line)
    assert left  # 9 more at 0.4 s each
    assert 3 <= int(left.group(1)) <= 6


def test_silent_when_asked(capsys):
    with progress_bar("work", 3, show=False) as bar:
        bar.advance(3)
    assert capsys.readouterr() == ("", "")
