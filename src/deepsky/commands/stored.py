"""Find runs of the MLflow store by what a person calls them."""

import re

from deepsky.commands.models import find_model
from deepsky.errors import DataError
from deepsky.experiment.experiment import read_experiment
from deepsky.tracking.recorded import RecordedRun, newest_run, run_by_id
from deepsky.tracking.trained_files import KEY_FILES, PREFIX, run_key

_ID = re.compile(r"[0-9a-f]{32}")


def find_stored(name: str) -> RecordedRun:
    """Return the run of the store that a name means.

    Args:
        name: MLflow's id; the path of a trained network or its folder; ``models:/NAME@ALIAS`` of MLflow's registry; or
            the name of a run: the one whose network stands in models/trained, else the newest that finished.

    Raises:
        DataError: there is none.
        TrackingError: the store cannot be used.
    """
    if _ID.fullmatch(name):
        found = run_by_id(name)
        if found is None:
            raise DataError(name, "is no run of this MLflow store", "make ui shows the ids of all runs")
        return found
    if name.startswith(PREFIX):
        from deepsky.tracking.registry import registered_model, resolved  # mlflow takes seconds to import

        found = run_by_id(registered_model(resolved(name)).source_run_id)
        if found is None:
            raise DataError(name, "was made by a run that is gone from this MLflow store", "give another version")
        return found
    experiment = read_experiment().tracking.experiment
    try:
        folder = find_model(name).parent
    except DataError as error:
        found = newest_run(experiment, "run", name)
        if found is None:
            raise DataError(error.where, f"{error.problem}, and no finished run of the store", error.remedy) from error
        return found
    missing = next((file for file in KEY_FILES if not (folder / file).is_file()), None)
    if missing:
        remedy = "give a run that deepsky runs lists, or bring the file back by dvc checkout"
        raise DataError(name, f"is not what stage train wrote: {folder / missing} is not there", remedy)
    found = newest_run(experiment, "key", run_key(folder))
    if found is None:  # an older run of this name is of another network
        remedy = "run deepsky runs --check, which delivers it or makes one of its files"
        raise DataError(name, "has no run in this MLflow store", remedy)
    return found
