"""Find trained networks by the names of their runs."""

from pathlib import Path

from deepsky.commands.planned import TRAINED
from deepsky.errors import DataError

FILE = "model.h5"


def find_model(name: str) -> Path:
    """Return the ``.h5`` of a trained network.

    Args:
        name: a path of it or of its folder; a run; DATASET-NETWORK; or, where only one dataset has it, a network.

    Raises:
        DataError: there is none of this name, or more than one.
    """
    path = Path(name)
    if path.exists():
        return path / FILE if path.is_dir() else path
    trained = {str(model.parent.relative_to(TRAINED)): model for model in sorted(TRAINED.glob(f"*/*/{FILE}"))}
    found = [model for run, model in trained.items() if name in (run, run.replace("/", "-"), run.partition("/")[2])]
    if len(found) == 1:
        return found[0]
    if found:
        problem = f"is a run of {len(found)} datasets"
        raise DataError(name, problem, f"choose one: {', '.join(run for run in trained if run.endswith(f'/{name}'))}")
    known = f"trained here: {', '.join(trained)}" if trained else f"{TRAINED} holds none yet: make repro trains some"
    raise DataError(name, "is neither a file nor a trained run", f"give the path of a {FILE}, or a run; {known}")
