"""Runs of several processes: one is killed, or all stop together; and a SLURM job that is requeued."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from commands_tried import NAMES, NETWORK, SOCO
from injected import empty

from socodet.images.photographs import photographs
from socodet.training.run_folder import RunFolder

LONG = [*SOCO, *NETWORK, "--device", "cpu", "--workers", "0", "--log-every", "1", "--epochs", "200"]


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("processes_images")
    for name in NAMES:
        (folder / f"{name}.jpg").write_bytes((photographs() / f"{name}.jpg").read_bytes())
    return folder


def two(starter, arguments):
    """Starts the two processes of one run, as torchrun does."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    env = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    return [
        starter.start(arguments, env | {"RANK": str(rank), "LOCAL_RANK": str(rank)}, f"rank{rank}") for rank in (0, 1)
    ]


def wait_until(condition):
    end = time.monotonic() + 100
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.mark.parametrize("dead", [0, 1])
def test_killing_one_process_ends_the_other_with_one_line_within_a_minute(starter, images, dead):
    empty(starter.folder)
    arguments = ["pretrain", str(images), "--output", str(starter.folder / "run"), *LONG]
    processes = two(starter, arguments)
    wait_until(lambda: RunFolder(starter.folder / "run").checkpoints())
    os.kill(processes[dead].process, signal.SIGKILL)
    killed = time.monotonic()
    other = starter.end(processes[1 - dead])
    assert time.monotonic() - killed < 60
    assert other.status == 2
    assert "Traceback" not in other.said
    assert "another process of this run has ended" in other.said.strip().splitlines()[-1]
    assert starter.end(processes[dead]).status == -9


def test_a_signal_to_one_process_stops_all_at_the_same_step(starter, images):
    empty(starter.folder)
    run = RunFolder(starter.folder / "run")
    processes = two(starter, ["pretrain", str(images), "--output", str(run.path), *LONG])
    wait_until(run.checkpoints)
    os.kill(processes[1].process, signal.SIGUSR1)
    ended = [starter.end(process) for process in processes]
    assert ended[1].status == 128 + signal.SIGUSR1, ended[1].said
    assert ended[0].status == 128 + signal.SIGTERM, ended[0].said
    assert len({line["step"] for line in run.log_lines()}) == len(list(run.log_lines()))


def test_a_slurm_job_stopped_early_is_requeued(starter, images, tmp_path):
    """The script of docs/reliability.md, with SLURM's commands replaced by stand-ins."""
    script = (Path(__file__).parents[2] / "docs/reliability.md").read_text()
    script = script.split("```bash\n")[1].split("```")[0]
    assert "#SBATCH --signal=B:USR1@" in script
    called = tmp_path / "called"
    for name, content in {
        "srun": f'#!/bin/sh\nexec "{sys.executable}" -c "from socodet.cli import main; main()" "$@"\n',
        "scontrol": f'#!/bin/sh\necho "$@" >> "{called}"\n',
    }.items():
        (tmp_path / name).write_text(content)
        (tmp_path / name).chmod(0o755)
    run = RunFolder(tmp_path / "run")
    line = next(line for line in script.splitlines() if line.startswith("srun "))
    script = script.replace(line, f'srun pretrain "{images}" --output "{run.path}" {" ".join(LONG)} --resume &')
    (tmp_path / "job.sh").write_text(script)
    env = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "SLURM_JOB_ID": "17"}
    env |= {"SLURM_PROCID": "0", "SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "1"}
    job = subprocess.Popen(["bash", tmp_path / "job.sh"], env=env, stderr=subprocess.PIPE, text=True)
    wait_until(run.checkpoints)
    job.send_signal(signal.SIGUSR1)
    assert job.wait(100) == 0, job.stderr.read()
    job.stderr.close()
    assert called.read_text().split() == ["requeue", "17"]
    stopped_at = run.load_checkpoint()["step"]
    assert 0 < stopped_at < 200
    (tmp_path / "srun").write_text("#!/bin/sh\nexit 0\n")
    subprocess.run(["bash", tmp_path / "job.sh"], env=env, check=True, capture_output=True)
    assert called.read_text().split() == ["requeue", "17"]  # it finished by itself, so it is not requeued again
