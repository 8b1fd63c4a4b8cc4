"""Experiment trackers as log sinks, by name: Weights & Biases and MLflow, each an extra of this package.

Their own variables say where they log: WANDB_MODE, WANDB_PROJECT, …; MLFLOW_TRACKING_URI, MLFLOW_EXPERIMENT_NAME.
"""

import contextlib
import importlib
import json
import logging
import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from socodet.errors import InputError
from socodet.runtime.files import write_atomically
from socodet.runtime.log import LOGGER
from socodet.runtime.notices import log_note
from socodet.runtime.world import World
from socodet.training.distributed import in_every_process
from socodet.training.log import FAILED, FINISHED, KILLED, OutcomeSink, scalars_of
from socodet.training.run_folder import FINETUNED, RunFolder

PROJECT: Final = "socodet"
"""The W&B project and MLflow experiment, unless the environment names another."""
PATIENCE_SECONDS: Final = 30.0
"""Seconds without another attempt after a server could not be reached."""
CONNECT_SECONDS: Final = 60.0
"""How long W&B may take to answer before a run."""
UPLOAD_SECONDS: Final = 300.0
"""How long W&B may go on uploading when a run has ended."""

STUDIES: Final = ("comparison.json", "own_data.json", "ablation.json")
"""Files that mark the folder of a study, which holds many runs."""

GONE: Final = "RESOURCE_DOES_NOT_EXIST"
REFUSED: Final = (GONE, "BAD_REQUEST", "INVALID_PARAMETER_VALUE", "MALFORMED_REQUEST")
"""MLflow's error codes for numbers that it will not accept later either; these are left out."""


def check_trackers(names: Sequence[str], world: World) -> None:
    """InputError, before anything is computed, for a tracker of `names` that is not logged in or cannot be reached.

    Every process of the run must call it, and all of them raise.
    """
    with in_every_process(world, "the first process cannot log to a tracker; see its message"):
        for name in names if world.is_first else ():
            if name in TRACKERS:
                TRACKERS[name].check()


class WandbSink(OutcomeSink):
    """Logs to Weights & Biases, a resumed run to the same W&B run; offline, to RUN/wandb for `wandb sync`."""

    @staticmethod
    def check() -> None:
        """InputError unless W&B is offline, or logged in; in a terminal, W&B itself asks for the key."""
        wandb = importlib.import_module("wandb")
        if wandb.setup().settings.mode != "online":
            return
        try:
            logged_in = wandb.login(timeout=60, verify=False)
        except wandb.Error:
            logged_in = False
        if not logged_in:
            raise InputError("--sink wandb: W&B is not logged in; run `wandb login`, or set WANDB_MODE=offline")

    def __init__(self, folder: Path) -> None:
        wandb = importlib.import_module("wandb")
        run = RunFolder(folder)
        recipe = run.describe()["recipe"]
        self._run: Any
        if wandb.setup().settings.mode == "online":
            LOGGER.info(f"W&B: connecting, for up to {CONNECT_SECONDS:.0f} s")
        try:
            self._run = wandb.init(
                id=_recorded_id(run, "wandb"),
                resume="allow",
                reinit="create_new",  # not a run that the calling program may have open
                dir=os.environ.get("WANDB_DIR", folder),
                project=os.environ.get("WANDB_PROJECT", PROJECT),
                name=os.environ.get("WANDB_NAME", shown_name(folder)),
                job_type=os.environ.get(
                    "WANDB_JOB_TYPE", "finetune" if recipe.get("name") == FINETUNED else "pretrain"
                ),
                config=_config(run),
                settings=wandb.Settings(
                    console="off", silent=True, init_timeout=CONNECT_SECONDS, finish_timeout=UPLOAD_SECONDS
                ),
            )
        except wandb.Error as error:
            problem = " ".join(str(error).split())
            raise InputError(
                f"--sink wandb: {problem}; WANDB_MODE=offline keeps the log in {folder}/wandb for `wandb sync`"
            ) from None
        self._run.define_metric(
            "*", step_metric="step"
        )  # W&B's own count of steps cannot go back, as a resumed run does
        _record_id(run, "wandb", self._run.id)
        if not self._run.offline:
            LOGGER.info(f"W&B: {self._run.url}")

    def write(self, step: int, line: Mapping[str, Any]) -> None:
        """Logs the numbers, and the step as one of them."""
        with _as_os_error("W&B"):
            self._run.log({**scalars_of(line), "step": step})

    def close(self) -> None:
        """Ends the W&B run, waiting for what is still to be uploaded."""
        with _as_os_error("W&B"):
            self._run.finish(exit_code={FINISHED: 0, FAILED: 1, KILLED: 255}[self.outcome])  # 255: as after Ctrl-C
            if self._run.offline:
                LOGGER.info(f"W&B: offline; upload with: wandb sync {Path(self._run.dir).parent}")


class MLflowSink(OutcomeSink):
    """Logs to the tracking server or folder that MLflow is set to; a resumed run continues the same MLflow run.

    Lines that a server could not accept are kept and sent later.
    """

    @staticmethod
    def check() -> None:
        """InputError when there is no experiment to log to, and none can be made."""
        _experiment(_mlflow_client())

    def __init__(self, folder: Path) -> None:
        self._client = _mlflow_client()
        run = RunFolder(folder)
        self._waiting: list[Any] = []
        self._silent_until = 0.0
        there = _recorded_id(run, "mlflow")
        if there is not None:
            with _as_input_error():
                if self._is_there(there):
                    self._client.update_run(there, status="RUNNING")
                else:
                    log_note(f"MLflow: there is no run {there} at {self._client.tracking_uri}; starting a new one")
                    there = None
        self._id = there or self._begin(run)
        _record_id(run, "mlflow", self._id)
        LOGGER.info(f"MLflow: run {self._id} at {self._client.tracking_uri}")

    def _is_there(self, identity: str) -> bool:
        """Whether there is a run of that id, and not a deleted one."""
        try:
            return bool(self._client.get_run(identity).info.lifecycle_stage != "deleted")
        except _mlflow_error() as error:
            if _code(error) == GONE:
                return False
            raise

    def _begin(self, run: RunFolder) -> str:
        experiment = _experiment(self._client)
        entities = importlib.import_module("mlflow.entities")
        parameters = [entities.Param(name, str(value)[:500]) for name, value in _flat(_config(run))]
        with _as_input_error():
            begun = str(self._client.create_run(experiment, run_name=shown_name(run.path)).info.run_id)
            for start in range(0, len(parameters), 100):  # as many as a request may have
                self._client.log_batch(begun, params=parameters[start : start + 100])
        return begun

    def write(self, step: int, line: Mapping[str, Any]) -> None:
        """Logs the numbers, or keeps them for later; an OSError says so, or that the server refused some."""
        metric = importlib.import_module("mlflow.entities").Metric
        now = time.time_ns() // 1_000_000
        self._waiting += [metric(_allowed(name), value, now, step) for name, value in scalars_of(line).items()]
        if time.monotonic() < self._silent_until:
            raise OSError("MLflow: could not be reached a moment ago")
        self._send()

    def _send(self) -> None:
        refused: Exception | None = None
        with _as_os_error("MLflow"):
            while self._waiting:
                try:
                    self._client.log_batch(self._id, metrics=self._waiting[:1000])  # as many as a request may have
                except Exception as error:
                    if _code(error) not in REFUSED:
                        self._silent_until = time.monotonic() + PATIENCE_SECONDS  # from now: it may have waited long
                        raise
                    refused = error
                del self._waiting[:1000]
            self._silent_until = 0.0
            if refused is not None:
                raise OSError(f"the server refuses some numbers, which are left out ({refused})")

    def close(self) -> None:
        """Sends what is left, and ends the MLflow run."""
        try:
            self._send()
        finally:
            if time.monotonic() >= self._silent_until:
                with _as_os_error("MLflow"):
                    self._client.set_terminated(self._id, self.outcome)


TRACKERS: Final[dict[str, type[WandbSink] | type[MLflowSink]]] = {"wandb": WandbSink, "mlflow": MLflowSink}


def _mlflow_client() -> Any:
    # By default MLflow tries for many minutes to reach a server, while training would wait.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
    logging.getLogger("mlflow.store").setLevel(logging.WARNING)
    with _as_input_error():
        return importlib.import_module("mlflow").MlflowClient()


def _experiment(client: Any) -> str:
    """The id of the experiment that the environment names, made if there is none of that name."""
    if "MLFLOW_EXPERIMENT_ID" in os.environ:
        return os.environ["MLFLOW_EXPERIMENT_ID"]
    name = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
    with _as_input_error():
        found = client.get_experiment_by_name(name)
        return str(found.experiment_id if found else client.create_experiment(name))


def _mlflow_error() -> type[Exception]:
    error: type[Exception] = importlib.import_module("mlflow.exceptions").MlflowException
    return error


def _code(error: Exception) -> str | None:
    """MLflow's code of an error."""
    return getattr(error, "error_code", None)


@contextlib.contextmanager
def _as_input_error() -> Iterator[None]:
    """Turns MLflow's errors, and those about a package that its store needs, into one line."""
    try:
        yield
    except (_mlflow_error(), ImportError) as error:
        raise InputError(
            f"--sink mlflow: {' '.join(str(error).split())}; set MLFLOW_TRACKING_URI to a server or a local database"
        ) from None


@contextlib.contextmanager
def _as_os_error(tracker: str) -> Iterator[None]:
    """Turns whatever goes wrong in a tracker into an OSError, which does not end training: see `LogSink.write`."""
    try:
        yield
    except Exception as error:
        raise OSError(f"{tracker}: {' '.join(str(error).split())}") from error


def _config(run: RunFolder) -> dict[str, Any]:
    """What a tracker shows as the settings of a run."""
    described = run.describe()
    return {
        "recipe": described["recipe"],
        "versions": described.get("versions", {}),
        "start": (described.get("start") or {}).get("from", "scratch"),
    }


def shown_name(folder: Path) -> str:
    """A run's name in a tracker: its folder's, or its path within a study, where many folders are named seed-0."""
    study = next((above for above in folder.parents if any((above / note).is_file() for note in STUDIES)), None)
    return folder.name if study is None else folder.relative_to(study.parent).as_posix()


def _flat(value: Any, above: str = "") -> Iterator[tuple[str, Any]]:
    """Values by the path to them, such as recipe.views.0.size."""
    inner = value if isinstance(value, dict) else dict(enumerate(value)) if isinstance(value, list) else None
    if inner:
        for key, one in inner.items():
            yield from _flat(one, f"{above}.{key}" if above else str(key))
    else:
        yield above, value


def _allowed(name: str) -> str:
    """A metric's name in the characters that MLflow allows."""
    return re.sub(r"[^\w\-. :/]", "_", name)


def _recorded_id(run: RunFolder, tracker: str) -> str | None:
    """The id under which the run was logged before."""
    try:
        found = json.loads(run.trackers.read_text())[tracker]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return found if isinstance(found, str) and re.fullmatch(r"[\w-]{1,64}", found) else None


def _record_id(run: RunFolder, tracker: str, identity: str) -> None:
    """Keeps the id beside the run."""
    ids = {name: found for name in TRACKERS if (found := _recorded_id(run, name))}
    write_atomically(run.trackers, json.dumps(ids | {tracker: identity}, indent=2).encode() + b"\n")
