"""Train a run on more and more of its train objects: whether more of them would help."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from deepsky.commands.jobs import packed_of, split_of
from deepsky.commands.trainings import MEASURES, Trainings, digests_of, finished, grouped_rows, train_all
from deepsky.datasets.packed import open_packed
from deepsky.datasets.splits import nested_order
from deepsky.errors import ConfigError
from deepsky.evaluation.figures import save_png
from deepsky.evaluation.learning_figure import learning_figure
from deepsky.experiment.experiment import read_experiment
from deepsky.files import whole_file
from deepsky.interruption import interruptible
from deepsky.lean_keras import compute_deterministically
from deepsky.training.examples import read_split

FOLDER = Path("evaluation/learning")
_PARTS = (8, 4, 2, 1)  # of the train objects, where nothing is said
_REMEDY = "raise it: every training needs objects of every class"


@interruptible()
def run(name: str, numbers: Sequence[int], seed: int) -> None:
    """Train on so many of the split's train objects, test on its test objects; write table and figure.

    A smaller sample lies in every larger one; whole groups are taken (the last may be cut short), the classes in the
    shares of all train objects. Val and test objects stay the same. What is finished stands in
    evaluation/learning/RUN.csv and is not trained again as long as its settings and data stay what they were.

    Args:
        name: of the run.
        numbers: of train objects; none: an eighth, a quarter, half and all of them.
        seed: of the order in which groups are taken.

    Raises:
        ConfigError: an argument, or a value of params.yaml, is wrong or does not fit the dataset.
        DataError: dataset or split is not there.
        WeightsError: the backbone's weights are missing or do not fit.
        TrackingError: the MLflow store refuses.
    """
    if not 0 <= seed < 2**32:
        raise ConfigError(f"--seed {seed}", "is out of range", f"give 0 to {2**32 - 1}")
    plan, common = _plan(name, numbers, seed)
    measure = plan.measures[0]

    def draw(done: pd.DataFrame) -> Path:
        title = f"{name}: learning curve"
        path = plan.path.with_suffix(".png")
        with whole_file(path) as file:
            save_png(learning_figure(done, measure, MEASURES[measure], title), file)
        return path

    def summarize(done: pd.DataFrame) -> dict[str, float]:
        return {f"{one}_at_{n}": float(value) for one in plan.measures for n, value in done[one].items()}

    train_all(plan, f"{name}-{common[:12]}-seed{seed}", {**plan.run.settings, "groups_seed": seed}, summarize, draw)
    print(f"{name}: see {plan.path} and {plan.path.with_suffix('.png')}")


def _plan(name: str, numbers: Sequence[int], seed: int) -> tuple[Trainings, str]:
    """Return what is to be done, and a hash of what all of it has in common."""
    whole = read_experiment()
    compute_deterministically(whole.deterministic)
    run = whole.find(name)
    packed = open_packed(packed_of(run.recipe))
    rows, split = grouped_rows(run, packed), read_split(split_of(run.recipe), packed)
    if not (split == "test").any():
        raise ConfigError("split.test_fraction", "is 0: there is nothing to test on", "raise it in params.yaml")
    train = np.flatnonzero(split == "train")
    order = train[nested_order(rows.iloc[train], seed)]
    wanted = _checked(numbers, rows["label"].to_numpy(str)[order])
    path = FOLDER / f"{name}.csv"
    splits = {n: _first(split, order, n) for n in sorted({*wanted, *_in_table(path, len(order))})}
    digests = digests_of(run, {0: [split], **{n: [one] for n, one in splits.items()}})
    plan = Trainings(
        run=run,
        packed=packed,
        groups=rows["group"].to_numpy(str),
        column="n",
        words="{:,} train objects",
        wanted=wanted,
        splits=splits,
        digests=digests,
        path=path,
        tracking=whole.tracking.beside("learning-curve"),
        batch_size=whole.features.batch_size,
    )
    finished(plan)  # a table that is none is told before anything is trained
    return plan, digests[0]


def _checked(numbers: Sequence[int], labels: npt.NDArray[np.str_]) -> list[int]:
    """Return how many train objects are wanted, ascending, each once.

    Args:
        numbers: as they were given.
        labels: of the train objects, in the order in which they are taken.
    """
    n_rows, classes = len(labels), set(labels)
    if not numbers:
        return sorted(n for n in {n_rows // part for part in _PARTS} if classes == set(labels[:n]))
    wanted = sorted(set(numbers))
    for n in wanted:
        if n > n_rows:
            raise ConfigError(f"--n {n}", f"is more than the {n_rows} train objects", "lower it")
        if n < 1 or (absent := classes - set(labels[:n])):
            problem = f"leaves out the class {min(absent)}" if n >= 1 else "is no number of objects"
            raise ConfigError(f"--n {n}", problem, _REMEDY)
    return wanted


def _first(split: npt.NDArray[np.str_], order: npt.NDArray[np.int64], n: int) -> npt.NDArray[np.str_]:
    """Return a split with the first ``n`` train rows only; the others are in no part."""
    part = split.copy()
    part[order[n:]] = ""
    return part


def _in_table(path: Path, most: int) -> set[int]:
    """Return the numbers that a table has; what else is wrong with it is told when it is read as a whole."""
    try:
        found = pd.read_csv(path)["n"].astype(int)
    except (OSError, ValueError, KeyError):
        return set()
    return {n for n in found if 1 <= n <= most}
