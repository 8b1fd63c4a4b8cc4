from types import SimpleNamespace

from socodet.runtime import progress
from socodet.runtime.progress import progress_bar


def test_time_left_ignores_work_done_before_resuming(monkeypatch, capsys):
    now = [0.0]
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: now[0]))
    with progress_bar("work", 100) as bar:
        bar.done_earlier(90)
        now[0] += 11  # a line is due
        bar.advance(1)
    line = capsys.readouterr().err
    assert line.startswith("work: 91/100")
    assert "99 s left" in line  # 9 more at 11 s each


def test_progress_is_silent_on_request(capsys):
    with progress_bar("work", 3, show=False) as bar:
        bar.advance(3)
    assert capsys.readouterr() == ("", "")


def test_evaluations_count_in_the_time_left_but_not_in_the_rate(monkeypatch, caplog):
    now = [0.0]
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: now[0]))
    caplog.set_level("INFO")
    with progress_bar("work", 10) as bar:
        now[0] += 500  # starting the workers
        bar.begin()
        for _ in range(2):
            now[0] += 5
            bar.advance(units=20)
        with bar.aside():
            now[0] += 90
        now[0] += 5
        bar.advance(units=20)
    # 60 images in 15 s of work; 105 s for 3 steps, so 245 s for the other 7
    assert "4.0 images/s" in caplog.messages[-1]
    assert "4 min left" in caplog.messages[-1]
