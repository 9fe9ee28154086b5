"""A search reaches every run: heads on random views, fine-tuned, from scratch, vote fractions; its trials are runs."""

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from optuna.trial import FrozenTrial
from ruamel.yaml import YAML

from deepsky.commands import adopt, tune
from deepsky.datasets.packed import open_packed
from deepsky.errors import ConfigError, DataError
from deepsky.experiment.experiment import read_experiment
from deepsky.networks.registry import SCRATCH
from deepsky.training.build import make_job
from deepsky.training.examples import examples_of, read_split
from deepsky.training.recipe import Recipe
from deepsky.training.trials import SerialTrainer, fit_of_job
from deepsky.training.view_features import KEY, read_views, write_views
from deepsky.tuning import inputs
from deepsky.tuning.params import TuneParams
from deepsky.tuning.study import load_study
from tests.run_project import DATASETS, FINE, FLIPS, HEADS, NET, know_tiny, write_project

STORAGE = "sqlite:///tuning.db"
RUNS = {
    "heads": HEADS,
    "votes_heads": replace(HEADS, dataset="votes", answer="tree", n_views=0, augment=replace(FLIPS, flip=False)),
    "fine": FINE,
    "net": replace(NET, augment=replace(FLIPS, shift=0.1)),
    "votes_net": replace(NET, dataset="votes", answer="sigmoid"),
}
TUNE: dict[str, Any] = {
    "trials": 2, "epochs": 2, "pruner": "none", "heartbeat_s": 1, "population": 2,
    "heads": {"layers": {"low": 0, "high": 1}, "units": [8], "batch_size": [8]},
    "images": {"batch_size": [8], "learn": [1, 2, "all"], "learning_rate": {"low": 1e-3, "high": 1e-2}},
}  # fmt: skip


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A project with the runs, and the features that their heads learn from."""
    with pytest.MonkeyPatch.context() as patch:
        root = write_project(tmp_path_factory.mktemp("tuning"), patch)
        for recipe in RUNS.values():
            if recipe.of_head:
                packed, split = data_of(recipe)
                trained = np.unique(packed.rows["image"].to_numpy()[split == "train"])
                out, weights = features_of(recipe), Path("models/pretrained/tiny/weights.h5")
                write_views("tiny", recipe.views, packed, weights, trained, out, batch_size=32)
                (out / KEY).write_text(out.name)
        write_lock(root)
        yield root


@pytest.fixture(autouse=True)
def inside(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr("deepsky.tuning.search.draw_study", lambda *arguments: None)
    know_tiny(monkeypatch)
    write_params()


def write_params(**changes: Any) -> None:
    """Write params.yaml with the runs and a small search; what a test adopted goes."""
    runs = {name: recipe.settings(own_head=recipe.network in SCRATCH) for name, recipe in RUNS.items()}
    params = {"datasets": {"pictures": DATASETS}, "runs": runs, "tune": TUNE | changes}
    YAML(typ="safe").dump(params, Path("params.yaml"))


def write_lock(root: Path) -> None:
    files = {f"data/splits/{name}.csv": "" for name in ("toy", "votes")}
    outs = [{"path": path, "md5": hashlib.md5((root / path).read_bytes()).hexdigest()} for path in files]
    folders = [f"data/{kind}/{name}" for kind in ("packed", "features") for name in ("toy", "votes")]
    outs += [{"path": path, "md5": f"{'0' * 32}.dir"} for path in (*folders, "models/pretrained")]
    YAML(typ="safe").dump({"schema": "2.0", "stages": {"all": {"cmd": "true", "outs": outs}}}, root / "dvc.lock")


def data_of(recipe: Recipe) -> tuple[Any, Any]:
    packed = open_packed(Path("data/packed") / recipe.dataset)
    return packed, read_split(Path("data/splits") / f"{recipe.dataset}.csv", packed)


def features_of(recipe: Recipe) -> Path:
    return Path("data/features") / recipe.dataset / recipe.network / recipe.views.name


def search(name: str, study: str = "", **tuned: Any) -> list[FrozenTrial]:
    """Search a run by the command, and return its trials."""
    write_params(**tuned)
    tune.run(name=name, study=study or f"s_{name}")
    return load_study(study or f"s_{name}", STORAGE).trials


def trained(recipe: Recipe) -> pd.DataFrame:
    """Fit a recipe as stage train does."""
    packed, split = data_of(recipe)
    views = read_views(features_of(recipe), len(packed.images)) if recipe.of_head else None
    weights = Path("models/pretrained") / recipe.network
    return make_job("r", recipe, packed, split, weights=weights, views=views).fit([])


@pytest.mark.parametrize("name", RUNS)
def test_what_a_trial_learned_the_adopted_run_learns(name: str) -> None:
    base, objective = RUNS[name], "rmse" if RUNS[name].dataset == "votes" else "cross_entropy"
    trials = search(name, objectives=[objective])
    assert [trial.state.name for trial in trials] == ["COMPLETE"] * 2
    adopt.run(f"s_{name}", 1, None)
    recipe = read_experiment().run(f"{name}_tuned")
    assert recipe.origin is not None
    assert (recipe.origin.study, recipe.origin.trial, recipe.origin.run) == (f"s_{name}", 1, name)
    assert (recipe.dataset, recipe.network, recipe.epochs) == (base.dataset, base.network, 2)
    history = trained(recipe)[-2:]  # what comes before is the head of a pretrained network by itself
    curve = [figures["val_loss"] for _, figures in trials[1].user_attrs["curve"]]
    assert curve == pytest.approx(list(history["val_loss"]), rel=1e-3)
    if objective == "rmse":
        assert trials[1].value == pytest.approx(history["val_rmse"].iloc[-1], rel=1e-4)  # keep: last
        assert set(trials[1].user_attrs["curve"][0][1]) == {"val_loss", "val_rmse"}


def test_what_is_searched_depends_on_the_run() -> None:
    drawn = {name: set(search(name, objectives=[one])[1].params) for name, one in OBJECTIVES.items()}
    assert {"learn", "augment_strength"} <= drawn["fine"]
    assert "augment_strength" in drawn["net"]
    assert "learn" not in drawn["net"]
    assert "label_smoothing" in drawn["net"]
    assert "label_smoothing" not in drawn["votes_net"]
    assert "layers" in drawn["heads"]


OBJECTIVES = {"heads": "cross_entropy", "fine": "cross_entropy", "net": "cross_entropy", "votes_net": "rmse"}


def test_images_are_read_from_the_memory_map() -> None:
    data = inputs.read_search_data("net", RUNS["net"], TuneParams(), **paths_of("toy"))
    assert isinstance(data.trainer, SerialTrainer)
    images = data.folds[0].inputs
    assert isinstance(images, np.memmap)
    assert images.dtype == np.uint8
    packed, split = data_of(RUNS["net"])
    job = make_job("net", RUNS["net"], packed, split, weights=Path("none"))
    made = fit_of_job(job)
    assert isinstance(made.make_batches(RUNS["net"], 0)._examples.inputs, np.memmap)
    assert examples_of(packed, split).inputs is packed.images


def paths_of(dataset: str) -> dict[str, Path]:
    return {
        "packed": Path(f"data/packed/{dataset}"), "split": Path(f"data/splits/{dataset}.csv"),
        "features": Path(f"data/features/{dataset}"), "weights": Path("models/pretrained"),
    }  # fmt: skip


def test_folds_of_images_and_fractions() -> None:
    (trial,) = search("votes_net", "folds", folds=2, trials=1, epochs=1)
    assert [step for step, _ in trial.user_attrs["curve"]] == [1, 2]


@pytest.mark.parametrize(
    ("name", "tuned", "message"),
    [
        ("fine", {"images": {"learn": [3]}}, "tune.images.learn: 3, but tiny has 2 blocks; write numbers from 1 to 2"),
        ("heads", {"folds": 2}, "tune.folds: 2, but random views are cached of the train rows of heads alone"),
        ("net", {"objectives": ["rmse"]}, "tune.objectives: rmse is for vote fractions, and net learns classes"),
        (
            "votes_net",
            {"objectives": ["f1_macro"]},
            "tune.objectives: f1_macro is for classes, and votes_net learns vote fractions; write rmse",
        ),
        ("fine", {"objectives": ["accuracy", "parameters"]}, "parameters is the same for every candidate of fine"),
        ("m31", {}, "run m31: is not in params.yaml"),
    ],
)
def test_a_search_that_does_not_fit_its_run_is_refused(name: str, tuned: dict[str, Any], message: str) -> None:
    write_params(**tuned)
    with pytest.raises(ConfigError, match=message) as caught:
        tune.run(name=name, study="refused")
    assert "\n" not in str(caught.value)


def test_features_that_nobody_asked_for_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    write_params()
    text = Path("params.yaml").read_text()
    Path("params.yaml").write_text(text.replace("n_views: 2", "n_views: 3"))
    with pytest.raises(
        DataError, match=r"holds no features; enter heads in params.yaml, below compare or runs, and run m"
    ):
        tune.run(name="heads", study="refused")
