"""What a search learns from: the files of the pipeline, as dvc.lock has them."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from deepsky.config import PARAMS
from deepsky.datasets.packed import Packed, open_packed
from deepsky.datasets.splits import fold_splits
from deepsky.errors import ConfigError, DataError
from deepsky.networks.backbone import build_base
from deepsky.networks.finetune import blocks_of
from deepsky.networks.registry import find_backbone
from deepsky.tracking.lineage import recorded_hashes
from deepsky.training.answers import answer_of, check_views, swaps_of
from deepsky.training.build import make_job
from deepsky.training.examples import Examples, examples_of, read_split
from deepsky.training.population import HeadTrainer
from deepsky.training.recipe import Recipe
from deepsky.training.trials import Fit, MakeBatches, SerialTrainer, Trainer, fit_of_head, fit_of_job
from deepsky.training.view_batches import ViewBatches
from deepsky.training.view_features import ViewFeatures, read_views
from deepsky.tuning.params import ImageSpace, TuneParams, searched_keys

_CHUNK = 1 << 20
_REMEDY = "run make repro"


@dataclass(frozen=True)
class SearchData:
    """What the candidates of a search are trained by and on.

    Attributes:
        trainer: for candidates of the run's kind.
        together: whether it trains many at once.
        folds: the examples, with the split of each fold.
        hashes: md5 of each input by its path.
    """

    trainer: Trainer
    together: bool
    folds: Sequence[Examples]
    hashes: Mapping[str, str]


def read_search_data(
    run: str, base: Recipe, params: TuneParams, *, packed: Path, split: Path, features: Path, weights: Path
) -> SearchData:
    """Read what the candidates learn from.

    Args:
        run: that is searched.
        base: its recipe.
        params: folds and their seed, and the space.
        packed: the dataset.
        split: its split.
        features: folder of the dataset's features; read where only a head learns, as memory maps that workers share.
        weights: folder of the pretrained weights of all networks; read where more learns than the head of a
            pretrained network.

    Raises:
        DataError: a file is missing, is not the one that dvc.lock has, or does not fit the others.
        ConfigError: the run does not fit its dataset, or the search does not fit the run.
    """
    inputs = [packed, split]
    inputs += [features] if base.of_head else [weights] if base.start == "pretrained" else []
    hashes = _checked_hashes(inputs)
    opened = open_packed(packed)
    answer_of(base, opened.card)
    check_views(base, opened.card)
    assigned = read_split(split, opened)
    splits = [assigned]
    if params.folds > 1:
        if base.of_head and base.n_views:
            problem = f"{params.folds}, but random views are cached of the train rows of {run} alone"
            raise ConfigError(f"{PARAMS}: tune.folds", problem, "set folds: 1, or n_views: 0 in the run")
        splits = fold_splits(assigned, opened.labels, _groups(split, opened), params.folds, params.seed)
    views = _read_views(features / base.network / base.views.name, run, opened) if base.of_head else None
    plain = None if views is None else views.plain
    folds = [examples_of(opened, one, plain) for one in splits]
    folds[0].check(needs_val=True)  # all folds have the same inputs
    if views is not None:
        batches = _view_batches(views, opened)
        together = base.answer == "softmax"
        trainer = HeadTrainer(batches) if together else SerialTrainer(partial(fit_of_head, make_batches=batches))
        return SearchData(trainer, together, folds, hashes)
    _check_depth(base, params)
    return SearchData(SerialTrainer(_job_fits(run, opened, weights / base.network)), False, folds, hashes)


def _read_views(folder: Path, run: str, packed: Packed) -> ViewFeatures:
    if not folder.exists():
        raise DataError(
            folder, "does not exist", f"enter {run} in params.yaml, below compare or runs, and run make repro"
        )
    return read_views(folder, len(packed.images))


def _view_batches(views: ViewFeatures, packed: Packed) -> MakeBatches:
    swaps = swaps_of(packed.card)
    return lambda examples, recipe, first_epoch: ViewBatches(examples, recipe, views, swaps, first_epoch)


def _job_fits(run: str, packed: Packed, weights: Path) -> Callable[[Recipe, Examples], Fit]:
    return lambda recipe, examples: fit_of_job(make_job(run, recipe, packed, examples.split, weights=weights))


def _check_depth(base: Recipe, params: TuneParams) -> None:
    """Refuse to unfreeze more blocks than there are: a candidate would only fail once it is drawn."""
    space = params.space_of(base)
    if not isinstance(space, ImageSpace) or "learn" not in searched_keys(space, base):
        return
    backbone = find_backbone(base.network)
    n_blocks = len(blocks_of(build_base(backbone, base.input_size_px), backbone))
    most = max((blocks for blocks in space.learn if blocks != "all"), default=1)
    if most > n_blocks:
        where, problem = f"{PARAMS}: tune.images.learn", f"{most}, but {base.network} has {n_blocks} blocks"
        raise ConfigError(where, problem, f"write numbers from 1 to {n_blocks}, or all")


def _checked_hashes(inputs: Sequence[Path]) -> dict[str, str]:
    """Return what dvc.lock has of each input, once it is seen to be there, and a file to be that one."""
    recorded = recorded_hashes([path.as_posix() for path in inputs])
    for path in inputs:
        if not path.exists():
            raise DataError(path, "does not exist", _REMEDY)
        if path.as_posix() not in recorded:
            raise DataError(path, "is not in dvc.lock", _REMEDY)
        if path.is_file() and _md5(path) != recorded[path.as_posix()]:
            raise DataError(path, "is stale: its hash is not the one in dvc.lock", _REMEDY)
    return recorded


def _md5(path: Path) -> str:
    digest = hashlib.md5(usedforsecurity=False)
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _groups(split: Path, packed: Packed) -> npt.NDArray[np.str_]:
    """Return the sky group of each row; the split is known to hold every row."""
    table = pd.read_csv(split, dtype=str, keep_default_na=False).set_index("id")
    if "group" not in table:
        raise DataError(split, "has no column group", "run dvc repro to write it again")
    return packed.rows["id"].map(table["group"]).to_numpy(str)
