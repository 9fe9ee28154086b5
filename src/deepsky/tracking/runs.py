"""MLflow runs: one per dataset x network, closed truthfully however its process ends."""

import getpass
import hashlib
import json
import os
import socket
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
from mlflow.entities import Metric, Param
from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor
from mlflow.tracking import MlflowClient

from deepsky.errors import TrackingError
from deepsky.interruption import interruptible, status_of, uninterrupted
from deepsky.tracking.artifacts import log_files
from deepsky.tracking.inputs import files_of, log_inputs, parts_of
from deepsky.tracking.lineage import Lineage, current_lineage, package_versions, recorded_lineage
from deepsky.tracking.params import TrackingParams
from deepsky.tracking.store import prepare, store_errors, tracking_uri

LINEAGE, PATCH = "lineage/lineage.json", "lineage/patch.diff"  # among the artifacts
KEY_FILES = ("run.json", "predictions.csv")
# Facts that are tables, or about the dataset: its inputs show them. They are no parameters to compare runs by.
_NOT_PARAMETERS = (
    "run", "params", "class_counts", "classes", "kind", "bands", "image_shape", "n_images", "n_objects",
    "n_test_images", "n_skipped", "n_dropped", "crop_px", "denoise", "denoise_strength",
)  # fmt: skip
HIDDEN = "mlflow.deepsky."  # of tags that MLflow's pages do not show, as of all that begin with mlflow.
_SHOWN_AS_PARAMETERS = ("run", "dataset", "network")
_OF_EPOCHS = "epoch/"  # MLflow's pages show metrics of one prefix together; the names without it are the kept network's
_MAX_VALUE_LENGTH = 6000  # MLflow's limit of a parameter's value
_MAX_PARAMS_PER_CALL = 100  # MLflow's limit of log_batch
_START_TOLERANCE_S = 5.0  # the kernel's clock and ours drift apart
_RANDOM_NOTE = "**Random weights**: the backbone was not pretrained. Do not compare with pretrained runs."


class Run:
    """One run in the store.

    Attributes:
        run_id: MLflow's id; never write it into an output of a stage.
    """

    def __init__(self, client: MlflowClient, run_id: str) -> None:
        """Wrap an existing run."""
        self._client, self.run_id = client, run_id

    def log_epochs(self, epochs: Sequence[tuple[int, Mapping[str, float]]]) -> None:
        """Log the metrics of epochs, counted from 1 or 0 as the caller's history does: curves, as ``epoch/NAME``.

        Raises:
            TrackingError: the store refuses.
        """
        named = [(epoch, {f"{_OF_EPOCHS}{name}": v for name, v in metrics.items()}) for epoch, metrics in epochs]
        self.log_history(named)

    def log_metrics(self, metrics: Mapping[str, float]) -> None:
        """Log metrics of the whole run.

        Raises:
            TrackingError: the store refuses.
        """
        self.log_history([(0, metrics)])

    def log_history(self, epochs: Sequence[tuple[int, Mapping[str, float]]]) -> None:
        """Log the metrics of many epochs in one call.

        Raises:
            TrackingError: the store refuses.
        """
        now_ms = int(time.time() * 1000)
        points = [Metric(name, float(v), now_ms, step) for step, metrics in epochs for name, v in metrics.items()]
        with store_errors():
            self._client.log_batch(self.run_id, metrics=points)

    def log_params(self, params: Mapping[str, object]) -> None:
        """Log parameters; nested mappings become ``outer.inner``, and too long a value goes whole into an artifact.

        Raises:
            TrackingError: the store refuses.
        """
        flat = flatten(params)
        with store_errors():
            for name, value in flat.items():
                if len(value) > _MAX_VALUE_LENGTH:
                    file = f"params/{name}.txt"
                    self._client.log_text(self.run_id, value, file)
                    note = f"... (whole value in the artifact {file})"
                    flat[name] = value[: _MAX_VALUE_LENGTH - len(note)] + note
            items = [Param(name, value) for name, value in flat.items()]
            for first in range(0, len(items), _MAX_PARAMS_PER_CALL):
                self._client.log_batch(self.run_id, params=items[first : first + _MAX_PARAMS_PER_CALL])

    def log_artifact(self, path: Path, folder: str = "") -> None:
        """Put a file, or all that a folder holds, into the run's artifacts below ``folder``; see `log_files`.

        Raises:
            TrackingError: the store refuses.
        """
        with store_errors():
            log_files(self._client, self.run_id, path, folder)

    def finish_outputs(self, trained: Path) -> None:
        """Name the files that this run made by their hashes, so that `find_run` finds it by them.

        Args:
            trained: the folder of the trained network.

        Raises:
            TrackingError: the store refuses, or a file cannot be read.
        """
        self.set_tag(f"{HIDDEN}model", model_hash(trained))
        self.set_tag(f"{HIDDEN}key", run_key(trained))

    def set_tag(self, name: str, value: str) -> None:
        """Set or replace a tag.

        Raises:
            TrackingError: the store refuses.
        """
        with store_errors():
            self._client.set_tag(self.run_id, name, value)

    def tags(self) -> dict[str, str]:
        """Return the run's tags.

        Raises:
            TrackingError: the store refuses.
        """
        with store_errors():
            return dict(self._client.get_run(self.run_id).data.tags)


@contextmanager
def training_run(
    *,
    tracking: TrackingParams,
    name: str,
    dataset: str,
    network: str,
    params: Mapping[str, object],
    tags: Mapping[str, str],
    inputs: Sequence[Path] = (),
    parts: Mapping[str, Mapping[str, int]] | None = None,
) -> Iterator[Run]:
    """Open a run and close it as what happened: finished, failed, or killed (Ctrl-C, SIGTERM).

    After a kill -9 nothing can close it; `close_dead_runs` does at the next opportunity.

    Args:
        tracking: section ``tracking``; its experiment is created where missing.
        name: of the run.
        dataset: name of the dataset.
        network: name of the architecture.
        params: every parameter that shaped the result, nested as it comes.
        tags: more tags, see ``named_tags``.
        inputs: outputs of other DVC stages that it reads.
        parts: objects by class in ``train``, ``val`` and ``test`` of the dataset, which is one of the inputs.

    Raises:
        TrackingError: the store cannot be used.
    """
    run: Run | None = None
    with interruptible():
        try:
            with uninterrupted():  # nobody could close a run that is made but not known yet
                close_dead_runs(tracking.experiment)
                facts = {"dataset": dataset, "network": network, **params}
                own = {**tags, f"{HIDDEN}versions": package_versions()}
                run = _create(tracking.experiment, name, facts, own, current_lineage(inputs, name), parts or {})
            with _machine_watched(run, is_wanted=tracking.system_metrics):
                yield run
            with uninterrupted():
                _close(run, "FINISHED")
        except BaseException as error:
            if run is not None:
                _close_quietly(run, status_of(error))
            raise


@contextmanager
def _machine_watched(run: Run, *, is_wanted: bool) -> Iterator[None]:
    """Log the machine's load into a run from a thread of MLflow's, as long as the block runs."""
    if not is_wanted:
        yield
        return
    monitor = SystemMetricsMonitor(run.run_id, tracking_uri=tracking_uri())
    monitor.start()
    try:
        yield
    finally:
        monitor.finish()


def restored_run(
    *,
    experiment: str,
    trained: Path,
    facts: Mapping[str, Any],
    history: Sequence[tuple[int, Mapping[str, float]]],
) -> Run:
    """Make a finished run from a train stage's files, for outputs that DVC restored instead of running the stage.

    Args:
        experiment: name of the MLflow experiment; created where missing.
        trained: the stage's output folder; its files become artifacts.
        facts: content of its run.json.
        history: metrics of each epoch.

    Raises:
        TrackingError: the store cannot be used.
    """
    tags = {"weights": str(facts["weights"]), "restored": "true"}
    run = _create(experiment, facts["run"], run_params(facts), tags, recorded_lineage(trained), facts["class_counts"])
    try:
        run.log_epochs(history)
        run.log_artifact(trained)
        run.finish_outputs(trained)
    except BaseException:
        _close_quietly(run, "FAILED")
        raise
    _close(run, "FINISHED")
    return run


def run_params(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a run logs as parameters: the facts of run.json but tables, and each setting under its own name."""
    kept = {key: value for key, value in facts.items() if key not in _NOT_PARAMETERS}
    return kept | {key: value for key, value in facts["params"].items() if key not in kept}


def run_key(trained: Path) -> str:
    """Return the hash that ties a run to what its stage wrote: sha256 over run.json and predictions.csv.

    Raises:
        TrackingError: one of the files cannot be read.
    """
    digest = hashlib.sha256()
    for name in KEY_FILES:
        try:
            content = (trained / name).read_bytes()
        except OSError as error:
            raise TrackingError(trained / name, f"cannot be read ({error.strerror})", "run the train stage") from error
        digest.update(len(content).to_bytes(8) + content)
    return digest.hexdigest()


def model_hash(trained: Path) -> str:
    """Return the SHA-256 of a trained network's file.

    Raises:
        TrackingError: it cannot be read.
    """
    try:
        with (trained / "model.h5").open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise TrackingError(error.filename, f"cannot be read ({error.strerror})", "run the train stage") from error


def find_run(experiment: str, key: str) -> Run | None:
    """Return the newest finished run with this key, None where there is none.

    Raises:
        TrackingError: the store cannot be used.
    """
    client, experiment_id = prepare(experiment)
    with store_errors():
        found = client.search_runs(
            [experiment_id],
            f"attributes.status = 'FINISHED' and tags.`{HIDDEN}key` = '{key}'",
            order_by=["attributes.start_time DESC"],
            max_results=1,
        )
    return Run(client, found[0].info.run_id) if found else None


def close_dead_runs(experiment: str) -> int:
    """Mark as killed the runs that claim to be running but whose process on this machine is gone, see ``is_alive``.

    Returns:
        How many there were.

    Raises:
        TrackingError: the store cannot be used.
    """
    client, experiment_id = prepare(experiment)
    with store_errors():
        running = client.search_runs([experiment_id], "attributes.status = 'RUNNING'", max_results=1000)
        dead = [run for run in running if is_alive(run.data.tags) is False]
        for run in dead:
            client.set_terminated(run.info.run_id, "KILLED")
    return len(dead)


def _create(
    experiment: str,
    name: str,
    params: Mapping[str, object],
    tags: Mapping[str, str],
    lineage: Lineage,
    parts: Mapping[str, Mapping[str, int]],
) -> Run:
    client, experiment_id = prepare(experiment)
    own = named_tags({"run": name} | {key: str(params[key]) for key in ("dataset", "network")} | dict(tags))
    if tags.get("weights") == "random":
        own["mlflow.note.content"] = _RANDOM_NOTE
    with store_errors():
        stored = client.create_run(
            experiment_id,
            tags={**lineage_tags(lineage), **process_tags(), **own},
            run_name=name,
        )
        run = Run(client, stored.info.run_id)
        inputs = [*parts_of(str(params["dataset"]), lineage.data, parts), *files_of(lineage.data)]
        log_inputs(client, run.run_id, inputs)
        client.log_text(run.run_id, json.dumps(lineage.as_json(), indent=1), LINEAGE)
        if lineage.revision and lineage.revision.patch:
            client.log_text(run.run_id, lineage.revision.patch, PATCH)
    run.log_params(params)
    return run


def named_tags(tags: Mapping[str, str]) -> dict[str, str]:
    """Return tags under their whole names: ``deepsky.NAME``, or a hidden one for what the parameters show too."""
    prefixes = {name: "" if "." in name else HIDDEN if name in _SHOWN_AS_PARAMETERS else "deepsky." for name in tags}
    return {prefixes[name] + name: value for name, value in tags.items()}


def lineage_tags(lineage: Lineage) -> dict[str, str]:
    """Return a run's origin as tags."""
    tags = {f"{HIDDEN}data.{path}": digest for path, digest in lineage.data.items()}
    tags |= {"mlflow.source.type": "LOCAL", "mlflow.source.name": lineage.stage or Path(sys.argv[0]).name}
    if lineage.stage:
        tags[f"{HIDDEN}stage"] = lineage.stage
    if (code := lineage.revision) is not None:
        tags["deepsky.code"] = f"{code.commit[:10]}{' + patch' if code.is_dirty else ''}" if code.commit else code.why
        if code.commit:
            tags["mlflow.source.git.commit"] = code.commit
            tags[f"{HIDDEN}git_dirty"] = str(code.is_dirty).lower()
    return tags


def process_tags() -> dict[str, str]:
    """Return what tells this process from every other of this machine, also from a later one with the same id."""
    return {
        "mlflow.user": _user(),
        f"{HIDDEN}host": socket.gethostname(),
        f"{HIDDEN}boot": _read_word(Path("/proc/sys/kernel/random/boot_id")),
        f"{HIDDEN}container": _pid_namespace(),
        f"{HIDDEN}pid": str(os.getpid()),
        f"{HIDDEN}process_start": f"{psutil.Process().create_time():.2f}",
    }


def _read_word(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii").strip()
    except OSError:  # not Linux
        return ""


def _pid_namespace() -> str:
    """Return what tells the processes of one container from those of another, whose numbers may be the same."""
    try:
        return str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return ""


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container whose user id has no name
        return str(os.getuid())


def is_alive(tags: Mapping[str, str]) -> bool | None:
    """Tell whether the process lives that opened a run; None where that cannot be told from here.

    A machine that was started anew has none of its old processes. Those of another machine, or of another container of
    this one, cannot be seen.

    Args:
        tags: of the run.
    """
    own = process_tags()
    same = {name: tags.get(f"{HIDDEN}{name}") == own[f"{HIDDEN}{name}"] for name in ("host", "boot", "container")}
    knows_boot = bool(tags.get(f"{HIDDEN}boot"))
    if same["host"] and knows_boot and not same["boot"]:
        return False
    if not (same["boot"] and same["container"] if knows_boot else same["host"]):
        return None
    try:
        process = psutil.Process(int(tags[f"{HIDDEN}pid"]))
        if process.status() == psutil.STATUS_ZOMBIE:
            return False
        return abs(process.create_time() - float(tags[f"{HIDDEN}process_start"])) < _START_TOLERANCE_S
    except psutil.NoSuchProcess:
        return False
    except (psutil.AccessDenied, KeyError, ValueError):
        return None


def _close(run: Run, status: str) -> None:
    with store_errors():
        run._client.set_terminated(run.run_id, status)


def _close_quietly(run: Run, status: str) -> None:
    """Close a run on the way out of an error, which must stay the one that is reported."""
    with uninterrupted(), suppress(TrackingError):
        _close(run, status)


def flatten(params: Mapping[str, object], prefix: str = "") -> dict[str, str]:
    """Return ``outer.inner`` names with the values as text."""
    flat: dict[str, str] = {}
    for name, value in params.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = str(list(value) if isinstance(value, tuple) else value)
    return flat
