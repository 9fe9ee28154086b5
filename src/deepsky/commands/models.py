"""Find trained networks by the names of their runs."""

from pathlib import Path

from deepsky.errors import DataError
from deepsky.tracking.trained_files import PREFIX

TRAINED, FILE = Path("models/trained"), "model.h5"
_DOWNLOADED = Path("models/registered")


def find_model(name: str) -> Path:
    """Return the ``.h5`` of a trained network.

    Args:
        name: a path of it or of its folder; a run; DATASET-NETWORK; or, where only one dataset has it, a network; or
            ``models:/NAME@ALIAS`` or ``models:/NAME/VERSION`` of MLflow's registry.

    Raises:
        DataError: there is none of this name, or more than one.
        TrackingError: MLflow's registry has none of this name, or cannot be used.
    """
    if name.startswith(PREFIX):
        from deepsky.tracking.registry import network_file  # mlflow takes seconds to import

        return network_file(name, _DOWNLOADED)
    path = Path(name)
    if path.is_file() or (path / FILE).is_file():
        return path if path.is_file() else path / FILE
    trained = {str(model.parent.relative_to(TRAINED)): model for model in sorted(TRAINED.glob(f"*/*/{FILE}"))}
    found = [run for run in trained if name in (run, run.replace("/", "-"), run.partition("/")[2])]
    if len(found) == 1:
        return trained[found[0]]
    if found:
        raise DataError(name, f"may be each of {len(found)} runs", f"choose one: {', '.join(found)}")
    known = f"trained here: {', '.join(trained)}" if trained else f"{TRAINED} holds none yet: make repro trains some"
    problem = (
        f"is a folder without {FILE}, and no trained run" if path.is_dir() else "is neither a file nor a trained run"
    )
    where = name if name.strip() else repr(name)
    raise DataError(
        where, problem if name.strip() else "names nothing", f"give the path of a {FILE}, or a run; {known}"
    )
