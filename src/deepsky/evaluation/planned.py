"""Which of the planned runs are there to be evaluated, and why the others are not."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deepsky.evaluation.trained import read_facts

NOT_TRAINED, OUT_OF_DATE = "not trained yet", "out of date"


@dataclass(frozen=True, kw_only=True)
class Places:
    """The folders of an evaluation.

    Attributes:
        packed: of the datasets, whose images show what a run got right and wrong.
        features: of DATASET/NETWORK/VIEWS folders as stage features writes them; for the baselines.
        trained: of DATASET/LABEL folders as stage train writes them.
        out: what evaluations are written to.
    """

    packed: Path
    features: Path
    trained: Path
    out: Path


@dataclass(frozen=True, kw_only=True)
class PlannedRun:
    """One run of the plan.

    Attributes:
        name: of the run, unique in the plan: ``sdss_cutouts-mobilenet``, or that of a single run.
        dataset: what it learns from.
        label: its folder below that of its dataset.
        settings: everything that shapes its result, as run.json's ``params`` say it.
        reference: name of the run that a search started from and that this one is compared with; None for others.
        is_cell: whether it belongs to the matrix of datasets and networks.
        features: DATASET/NETWORK/VIEWS of a head that tells classes, below the folder of all features; else None.
        is_simulated: whether it learns from the simulated sky, so that its positions show nothing of it.
    """

    name: str
    dataset: str
    label: str
    settings: Mapping[str, Any]
    reference: str | None = None
    is_cell: bool = False
    features: str | None = None
    is_simulated: bool = False

    def folder(self, root: Path) -> Path:
        """Return the run's folder below that of all runs."""
        return root / self.dataset / self.label


@dataclass(frozen=True)
class LeftOut:
    """A planned run that cannot be evaluated.

    Attributes:
        name: of the run.
        reason: NOT_TRAINED or OUT_OF_DATE.
    """

    name: str
    reason: str


def trained_runs(planned: Sequence[PlannedRun], trained: Path) -> tuple[list[PlannedRun], list[LeftOut]]:
    """Tell the planned runs that were trained, with just these settings, from those that were not.

    Args:
        planned: every run of the plan.
        trained: folder of DATASET/LABEL folders.

    Raises:
        DataError: a folder is not what the train stage writes.
    """
    there, left_out = [], []
    for one in planned:
        folder = one.folder(trained)
        if not folder.is_dir():
            left_out.append(LeftOut(one.name, NOT_TRAINED))
        elif read_facts(folder, one.name)["params"] != json.loads(json.dumps(dict(one.settings))):
            left_out.append(LeftOut(one.name, OUT_OF_DATE))
        else:
            there.append(one)
    return there, left_out


def in_words(n_evaluated: int, left_out: Sequence[LeftOut]) -> str:
    """Return ``27 of 29 runs evaluated; not trained yet: a, b``."""
    parts = [f"{n_evaluated} of {n_evaluated + len(left_out)} runs evaluated"]
    for reason in (NOT_TRAINED, OUT_OF_DATE):
        names = [one.name for one in left_out if one.reason == reason]
        parts += [f"{reason}: {', '.join(names)}"] if names else []
    return "; ".join(parts)
