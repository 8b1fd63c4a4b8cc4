"""The estimate of a study's remaining time."""

from socodet.studies.runner import Job, JobResult, Study, TimeLeft


def test_jobs_are_estimated_from_finished_jobs_of_their_kind():
    time_left = TimeLeft()
    assert time_left.line(["detector", "detector"]) is None
    time_left.took("detector", 60)
    time_left.took("detector", 120)
    assert time_left.line(["detector"] * 4) == "about 6 min left for 4 detectors"
    some = time_left.line(["detector", "pretraining run", "detector"])
    assert some == "about 3 min left for 2 detectors; 1 pretraining run not counted"
    time_left.took("pretraining run", 3600)
    assert time_left.line(["detector", "pretraining run"]).startswith("about 62 min left")
    assert time_left.line([]) is None


def test_a_study_prints_the_time_left_after_a_complete_job(tmp_path, monkeypatch, caplog):
    """The clock advances only within jobs, by 600 s in a detector."""
    now = [0.0]
    monkeypatch.setattr("socodet.studies.runner.time.monotonic", lambda: now[0])

    def train(folder):
        now[0] += 600
        return JobResult({"seconds": 600})

    study = Study(tmp_path / "out", "count")
    study.find({})
    study.begin({}, [])
    jobs = [Job(f"d-{number}", {"seed": number}, f"number {number}", train, kind="detector") for number in range(3)]
    with caplog.at_level("INFO", logger="socodet"):
        study.run(jobs, lambda: None)
    said = [record.message for record in caplog.records if "left" in record.message]
    assert said == ["about 20 min left for 2 detectors", "about 10 min left for 1 detector"]
