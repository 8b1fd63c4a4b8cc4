"""Commands killed at any moment, and disks that fail at any write: resumed and identical, or one clear line.

SOCODET_FAULTS is the number of kills of each command, at random moments and during writes. With 3, the default, one
write fails in each way, and a study, whose pieces are tried by themselves, is killed once; `make soak`: 20 of each.
SOCODET_FAULTS_RECORD is a file to which a line of JSON is added for each kind of fault of each command.
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
    """How the command ends, and its result, when nothing goes wrong."""
    empty(starter.folder)
    command_line = command.arguments(given, starter.folder)
    ended = starter.run(command_line)
    assert ended.status == 0, ended.said
    assert ended.writes > 0
    return command_line, ended, command.found(starter.folder)


def record(command, fault, ended):
    """Notes how the commands with a fault ended: killed, with one line, or with their whole result all the same."""
    path = os.environ.get("SOCODET_FAULTS_RECORD")
    if path:
        ways = {-9: "killed", 0: "completed all the same", 2: "ended in one line"}
        counts = {way: sum(status == code for status in ended) for code, way in ways.items()}
        line = {"command": command.name, "fault": fault, "faults": len(ended), **counts, "resumed to the same": True}
        with open(path, "a") as file:
            file.write(json.dumps(line | {"seed": SEED}) + "\n")


def kills(command):
    return COUNT // 3 if command.name == "study" and COUNT < 20 else COUNT


def completes(command, starter, undisturbed):
    """Run again, the command ends well, with the result of an undisturbed one."""
    command_line, _, expected = undisturbed
    again = starter.run(command_line)
    if again.status == 2 and "--overwrite" in again.said:  # finished before the fault
        again = again.__class__(0, again.said, again.seconds, again.writes)
    assert again.status == 0, again.said
    assert command.found(starter.folder) == expected


def test_killed_at_random_moments_it_resumes_and_the_result_is_the_same(command, starter, undisturbed):
    command_line, ended, _ = undisturbed
    empty(starter.folder)
    print("seed", SEED)
    statuses = []
    for moment in moments(f"{SEED} {command.name} kill", kills(command), 0.9 * ended.seconds):
        killed = starter.run(command_line, kill_after=moment)
        statuses.append(killed.status)
        assert killed.status in (-9, 0) or "--overwrite" in killed.said, killed.said
        assert_whole(starter.folder)
    completes(command, starter, undisturbed)
    record(command, "SIGKILL at a random moment", statuses)


def test_killed_amid_writes_it_resumes_and_the_result_is_the_same(command, starter, undisturbed):
    command_line, ended, _ = undisturbed
    empty(starter.folder)
    print("seed", SEED)
    statuses = []
    for number in picked(f"{SEED} {command.name} amid", kills(command), ended.writes):
        killed = starter.run(command_line, at=1 + number // 2, how="kill")  # fewer writes are left than at first
        statuses.append(killed.status)
        assert killed.status in (-9, 0) or "--overwrite" in killed.said, (number, killed.said)
        assert_whole(starter.folder)
    completes(command, starter, undisturbed)
    record(command, "SIGKILL amid a write", statuses)


@pytest.mark.parametrize("how", HOW)
def test_a_write_that_fails_is_survived_or_one_clear_line(command, starter, undisturbed, how):
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
        completes(command, starter, undisturbed)
    if count:
        record(
            command,
            {"once": "one write ENOSPC", "full": "ENOSPC from a write on", "broken": "one write EIO"}[how],
            statuses,
        )
