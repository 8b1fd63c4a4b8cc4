"""Commands killed at any moment, and disks that fail at any write: they resume to the same result, or end in one line.

SOCODET_FAULTS is the number of kills per command, at random moments and during writes. With the default of 3, one
write fails in each way, and a study, whose parts are tested on their own, is killed once; `make soak` uses 20.
SOCODET_FAULTS_RECORD is a file to which one line of JSON is appended for each kind of fault and command.
"""

import json
import os

import pytest
from commands_tried import COMMANDS, make_inputs
from injected import assert_whole, empty, moments, picked

COUNT = int(os.environ.get("SOCODET_FAULTS", "3"))
SEED = os.environ.get("SOCODET_FAULTS_SEED", str(os.getpid()))
HOW = ("once", "full", "broken")


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    folder = tmp_path_factory.mktemp("given") / "data"
    make_inputs(folder)
    return folder


@pytest.fixture(params=COMMANDS, ids=lambda command: command.name, scope="module")
def command(request):
    return request.param


@pytest.fixture(scope="module")
def undisturbed(command, given, starter):
    """The command line, how it ends without a fault, and its result."""
    empty(starter.folder)
    command_line = command.arguments(given, starter.folder)
    ended = starter.run(command_line)
    assert ended.status == 0, ended.said
    assert ended.writes > 0
    return command_line, ended, command.found(starter.folder)


def record(command, fault, ended):
    """Records how commands with a fault ended: killed, in one line, or complete despite the fault."""
    path = os.environ.get("SOCODET_FAULTS_RECORD")
    if path:
        ways = {-9: "killed", 0: "completed all the same", 2: "ended in one line"}
        counts = {way: sum(status == code for status in ended) for code, way in ways.items()}
        line = {"command": command.name, "fault": fault, "faults": len(ended), **counts, "resumed to the same": True}
        with open(path, "a") as file:
            file.write(json.dumps(line | {"seed": SEED}) + "\n")


def kills(command):
    return COUNT // 3 if command.name == "study" and COUNT < 20 else COUNT


def assert_completes(command, starter, undisturbed):
    """Asserts that the repeated command succeeds with the result of an undisturbed one."""
    command_line, _, expected = undisturbed
    again = starter.run(command_line)
    if again.status == 2 and "--overwrite" in again.said:  # it had finished before the fault
        again = again.__class__(0, again.said, again.seconds, again.writes)
    assert again.status == 0, again.said
    assert command.found(starter.folder) == expected


def test_a_command_killed_at_random_moments_resumes_to_the_same_result(command, starter, undisturbed):
    command_line, ended, _ = undisturbed
    empty(starter.folder)
    print("seed", SEED)
    statuses = []
    for moment in moments(f"{SEED} {command.name} kill", kills(command), 0.9 * ended.seconds):
        killed = starter.run(command_line, kill_after=moment)
        statuses.append(killed.status)
        assert killed.status in (-9, 0) or "--overwrite" in killed.said, killed.said
        assert_whole(starter.folder)
    assert_completes(command, starter, undisturbed)
    record(command, "SIGKILL at a random moment", statuses)


def test_a_command_killed_during_writes_resumes_to_the_same_result(command, starter, undisturbed):
    command_line, ended, _ = undisturbed
    empty(starter.folder)
    print("seed", SEED)
    statuses = []
    for number in picked(f"{SEED} {command.name} amid", kills(command), ended.writes):
        killed = starter.run(command_line, at=1 + number // 2, how="kill")  # fewer writes remain after each resume
        statuses.append(killed.status)
        assert killed.status in (-9, 0) or "--overwrite" in killed.said, (number, killed.said)
        assert_whole(starter.folder)
    assert_completes(command, starter, undisturbed)
    record(command, "SIGKILL amid a write", statuses)


@pytest.mark.parametrize("how", HOW)
def test_a_failing_write_is_survived_or_one_clear_line(command, starter, undisturbed, how):
    command_line, ended, expected = undisturbed
    count = COUNT if COUNT >= 20 else 0 if command.name == "study" else COUNT // 3
    print("seed", SEED)
    statuses = []
    for number in picked(f"{SEED} {command.name} {how}", count, ended.writes):
        empty(starter.folder)
        failed = starter.run(command_line, at=number, how=how)
        statuses.append(failed.status)
        assert_whole(starter.folder)
        assert "Traceback" not in failed.said, (number, failed.said)
        if failed.status == 0:
            assert command.found(starter.folder) == expected, (number, failed.said)
            continue
        assert failed.status == 2, (number, failed.said)
        last = failed.said.strip().splitlines()[-1]
        assert last.startswith("socodet: error:"), (number, failed.said)
        assert str(starter.folder) in last, (number, failed.said)
        assert_completes(command, starter, undisturbed)
    if count:
        record(
            command,
            {"once": "one write ENOSPC", "full": "ENOSPC from a write on", "broken": "one write EIO"}[how],
            statuses,
        )
