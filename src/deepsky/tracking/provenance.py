"""Where runs came from, and how long they trained: what MLflow alone knows, as no output of a stage holds it."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from urllib.parse import quote

from deepsky.tracking.runs import HIDDEN
from deepsky.tracking.store import prepare, store_errors

_DATA = f"{HIDDEN}data."
_UI = "http://127.0.0.1:5000"  # of make ui
_AT_ONCE = 1000


@dataclass(frozen=True)
class Provenance:
    """Where one run came from; what is not known is empty.

    Attributes:
        commit: of git, when it was trained.
        is_dirty: whether files differed from it.
        data: hash of each input by its path.
        versions: of python and the packages that trained it, in words.
        training_s: seconds that the fit took; None for a run whose files came from the DVC cache.
        page: its address in MLflow's pages; ``make ui`` serves them.
    """

    commit: str
    is_dirty: bool
    data: Mapping[str, str]
    versions: str
    training_s: float | None
    page: str


def provenances(experiment: str, keys: Iterable[str]) -> dict[str, Provenance]:
    """Return where runs came from, by their keys (see ``runs.run_key``); those that MLflow does not know are left out.

    Args:
        experiment: MLflow experiment of the runs.
        keys: of the runs.

    Raises:
        TrackingError: the store cannot be used.
    """
    wanted, found, token = set(keys), dict[str, Provenance](), None
    client, experiment_id = prepare(experiment)
    while True:
        query, newest_first = "attributes.status = 'FINISHED'", ["attributes.start_time DESC"]
        with store_errors():
            page = client.search_runs(
                [experiment_id], query, max_results=_AT_ONCE, order_by=newest_first, page_token=token
            )
        for run in page:
            key = run.data.tags.get(f"{HIDDEN}key", "")
            if key in wanted and key not in found:
                found[key] = _provenance(run.data.tags, run.data.metrics, experiment_id, run.info.run_name)
        token = page.token
        if not token or len(found) == len(wanted):
            return found


def _provenance(tags: Mapping[str, str], metrics: Mapping[str, float], experiment_id: str, run_name: str) -> Provenance:
    named = quote(f"attributes.run_name = '{run_name}'", safe="")
    return Provenance(
        commit=tags.get("mlflow.source.git.commit", ""),
        is_dirty=tags.get(f"{HIDDEN}git_dirty") == "true",
        data={name.removeprefix(_DATA): value for name, value in tags.items() if name.startswith(_DATA)},
        versions=tags.get(f"{HIDDEN}versions", ""),
        training_s=metrics.get("training_s"),
        page=f"{_UI}/#/experiments/{experiment_id}/runs?workflowType=machine_learning&searchFilter={named}",
    )
