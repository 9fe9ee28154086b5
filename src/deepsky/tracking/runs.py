"""MLflow runs: one per dataset x network, closed truthfully however its process ends."""

import json
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

from deepsky.errors import TrackingError, UnreachableError
from deepsky.interruption import interruptible, status_of, uninterrupted
from deepsky.tracking.delivery import Delivery, Entry, now_ms, opening
from deepsky.tracking.journal import Journal, deliver_waiting
from deepsky.tracking.lineage import LINEAGE, PATCH, Lineage, current_lineage, package_versions, recorded_lineage
from deepsky.tracking.outbox import Outbox, Pace
from deepsky.tracking.params import TrackingParams
from deepsky.tracking.store import impatient, prepare, store_errors, tracking_uri
from deepsky.tracking.tags import HIDDEN, flatten, is_alive, lineage_tags, named_tags, process_tags
from deepsky.tracking.trained_files import NETWORK_FILE, model_hash, run_key

PACE = Pace()
# Facts that are tables, or about the dataset: its inputs show them. They are no parameters to compare runs by.
_NOT_PARAMETERS = (
    "run", "params", "class_counts", "classes", "kind", "bands", "image_shape", "n_images", "n_objects",
    "n_test_images", "n_skipped", "n_dropped", "crop_px", "denoise", "denoise_strength", "n_epochs",
)  # fmt: skip
OUTCOMES = ("kept_epoch", "temperature_applied")  # facts that came of the fit: metrics
_OF_EPOCHS = "epoch/"  # MLflow's pages show metrics of one prefix together; the names without it are the kept network's
_RANDOM_NOTE = "**Random weights**: the backbone was not pretrained. Do not compare with pretrained runs."


class Run:
    """One run in the store, or on its way there."""

    def __init__(self, delivery: Delivery, put: Callable[[Entry], None] | None = None) -> None:
        """Wrap a run.

        Args:
            delivery: its way into the store.
            put: takes what is logged, to be delivered later; None: all is written at once.
        """
        self._delivery, self._put = delivery, put or delivery.write

    @property
    def run_id(self) -> str:
        """MLflow's id, empty as long as the store has not answered; never write it into an output of a stage."""
        return self._delivery.run_id

    def log_epochs(self, epochs: Sequence[tuple[int, Mapping[str, float]]]) -> None:
        """Log the metrics of epochs, counted from 1 or 0 as the caller's history does: curves, as ``epoch/NAME``.

        Raises:
            TrackingError: the store refuses, here as in all that follows: of a run that is written at once.
        """
        named = [(epoch, {f"{_OF_EPOCHS}{name}": v for name, v in metrics.items()}) for epoch, metrics in epochs]
        self.log_history(named)

    def log_metrics(self, metrics: Mapping[str, float]) -> None:
        """Log metrics of the whole run."""
        self.log_history([(0, metrics)])

    def log_history(self, epochs: Sequence[tuple[int, Mapping[str, float]]]) -> None:
        """Log the metrics of many epochs in one call."""
        at_ms = now_ms()
        points = [[name, float(value), at_ms, step] for step, metrics in epochs for name, value in metrics.items()]
        self._put({"kind": "metrics", "points": points})

    def log_params(self, params: Mapping[str, object]) -> None:
        """Log parameters; nested mappings become ``outer.inner``, and too long a value goes whole into an artifact."""
        self._put({"kind": "params", "params": flatten(params)})

    def log_lineage(self, lineage: Lineage) -> None:
        """Log what the run came from, and how its code differed from the commit."""
        self._put({"kind": "text", "file": LINEAGE, "text": json.dumps(lineage.as_json(), indent=1)})
        if lineage.revision and lineage.revision.patch:
            self._put({"kind": "text", "file": PATCH, "text": lineage.revision.patch})

    def log_artifact(self, path: Path, folder: str = "") -> None:
        """Put a file, or all that a folder holds, into the run's artifacts below ``folder``; see `artifacts`."""
        self._put({"kind": "files", "path": str(path), "folder": folder})

    def log_trained(self, folder: Path, facts: Mapping[str, Any], example: list[Any] | None = None) -> None:
        """Log what stage train wrote: the network as the run's model, all else among its artifacts.

        Args:
            folder: the stage's output.
            facts: content of its run.json.
            example: one image that the network takes, as nested lists; None: there is none at hand.
        """
        for path in sorted(folder.iterdir()):
            if path.name != NETWORK_FILE:
                self.log_artifact(path)
        text = "" if example is None else json.dumps([example])
        self._put({"kind": "model", "path": str(folder / NETWORK_FILE), "facts": dict(facts), "example": text})

    def log_scores(self, metrics: Mapping[str, float]) -> None:
        """Log metrics of the trained network; those named after a part (``test_accuracy``) belong to its data."""
        self._put({"kind": "scores", "metrics": dict(metrics), "at_ms": now_ms()})

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
        """Set or replace a tag."""
        self._put({"kind": "tags", "tags": {name: value}})

    def end(self, status: str) -> None:
        """Close the run as FINISHED, FAILED or KILLED."""
        self._put({"kind": "end", "status": status, "end_ms": now_ms()})

    def tags(self) -> dict[str, str]:
        """Return the run's tags."""
        return self._delivery.tags()


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
    study: str = "",
    pace: Pace = PACE,
) -> Iterator[Run]:
    """Open a run and close it as what happened: finished, failed, or killed (Ctrl-C, SIGTERM).

    What is logged in the block is sent beside it: a store that is slow, or goes away, costs the training nothing. What
    is not delivered at the end waits on disk for the next run; so does a run that the store did not answer for at its
    start. After a kill -9 the next run delivers the rest, and closes it as killed.

    Args:
        tracking: section ``tracking``; its experiment is created where missing.
        name: of the run.
        dataset: name of the dataset.
        network: name of the architecture.
        params: every parameter that shaped the result, nested as it comes.
        tags: more tags, see ``named_tags``.
        inputs: outputs of other DVC stages that it reads.
        parts: objects by class in ``train``, ``val`` and ``test`` of the dataset, which is one of the inputs.
        study: whose run this one stands below, see ``studies``.
        pace: when it is sent.

    Raises:
        TrackingError: the store refuses from the start.
    """
    lineage, outbox = current_lineage(inputs, name), None
    facts = {"dataset": dataset, "network": network, **params}
    own = _own_tags(name, facts, {**tags, f"{HIDDEN}versions": package_versions()}, lineage)
    with interruptible(), impatient():
        try:
            with uninterrupted():  # nobody could close a run that is made but not known yet
                outbox = _opened(tracking.experiment, name, own, facts, lineage, parts, study, pace)
            run = Run(outbox.delivery, outbox.put)
            with _machine_watched(run, is_wanted=tracking.system_metrics):
                yield run
            with uninterrupted():
                _finish(outbox, "FINISHED")
        except BaseException as error:
            if outbox is not None:
                with uninterrupted():
                    _finish(outbox, status_of(error))
            raise


def _opened(
    experiment: str,
    name: str,
    tags: Mapping[str, str],
    facts: Mapping[str, object],
    lineage: Lineage,
    parts: Mapping[str, Mapping[str, int]] | None,
    study: str,
    pace: Pace,
) -> Outbox:
    """Begin a run, after those that wait; raises what a store says that refuses."""
    journal = Journal()
    outbox = Outbox(journal, pace)
    dataset = str(facts["dataset"])
    made = opening(experiment, name, journal.name, tags, dataset=dataset, data=lineage.data, parts=parts, study=study)
    outbox.put(made)
    run = Run(outbox.delivery, outbox.put)
    run.log_params(facts)
    run.log_lineage(lineage)
    try:
        deliver_waiting()
        close_dead_runs(experiment)
        outbox.send()
    except UnreachableError as error:
        outbox.warn(error)
    except BaseException:
        outbox.abandon()
        raise
    outbox.start()
    return outbox


def _finish(outbox: Outbox, status: str) -> None:
    Run(outbox.delivery, outbox.put).end(status)
    outbox.close()


@contextmanager
def _machine_watched(run: Run, *, is_wanted: bool) -> Iterator[None]:
    """Log the machine's load into a run from a thread of MLflow's, as long as the block runs."""
    if not is_wanted or not run.run_id:  # that thread needs a run in the store
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
        trained: the stage's output folder; its files become artifacts, the network the run's model.
        facts: content of its run.json.
        history: metrics of each epoch.

    Raises:
        TrackingError: the store cannot be used.
    """
    reads = {"data/features": facts["learn"] == "head", "models/pretrained": facts["start"] == "pretrained"}
    lineage = recorded_lineage(trained, [folder for folder, is_read in reads.items() if not is_read])
    params = run_params(facts) | {"split": lineage.split_settings(facts["dataset"])}
    tags = _own_tags(facts["run"], params, {"weights": str(facts["weights"]), "restored": "true"}, lineage)
    delivery = Delivery()
    dataset, parts = facts["dataset"], facts["class_counts"]
    name = uuid.uuid4().hex
    delivery.write(opening(experiment, facts["run"], name, tags, dataset=dataset, data=lineage.data, parts=parts))
    run = Run(delivery)
    try:
        run.log_params(params)
        run.log_lineage(lineage)
        run.log_epochs(history)
        run.log_metrics({name: facts[name] for name in OUTCOMES if name in facts})
        run.log_trained(trained, facts)
        run.finish_outputs(trained)
    except BaseException:
        with uninterrupted(), suppress(TrackingError):  # the error itself must stay the one that is reported
            run.end("FAILED")
        raise
    run.end("FINISHED")
    return run


def run_params(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a run logs as parameters: what run.json knew before the fit, each setting under its own name."""
    kept = {key: value for key, value in facts.items() if key not in (*_NOT_PARAMETERS, *OUTCOMES)}
    return kept | {key: value for key, value in facts["params"].items() if key not in kept}


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
    return Run(Delivery(client, found[0].info.run_id)) if found else None


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


def _own_tags(name: str, facts: Mapping[str, object], tags: Mapping[str, str], lineage: Lineage) -> dict[str, str]:
    own = named_tags({"run": name} | {key: str(facts[key]) for key in ("dataset", "network")} | dict(tags))
    note = {"mlflow.note.content": _RANDOM_NOTE} if tags.get("weights") == "random" else {}
    return {**lineage_tags(lineage), **process_tags(), **own, **note}
