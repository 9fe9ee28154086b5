"""deepsky learning-curve: nested samples of whole groups, the same test rows, a table, a figure and its runs."""

from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from mlflow.tracking import MlflowClient

from deepsky.cli import cli
from deepsky.commands import learning_curve, trainings
from deepsky.datasets.packed import open_packed
from deepsky.datasets.splits import nested_order
from deepsky.errors import ConfigError
from deepsky.evaluation.learning_figure import learning_figure
from deepsky.networks.registry import place_of
from deepsky.training.examples import read_split
from tests.run_project import know_tiny, write_params, write_project

CSV, PNG = Path("evaluation/learning/net.csv"), Path("evaluation/learning/net.png")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = write_project(tmp_path / "project", monkeypatch)
    know_tiny(monkeypatch)
    monkeypatch.setattr(trainings, "place_of", lambda name: place_of("mobilenet" if name == "tiny" else name))
    write_params(root, ["net"], epochs=1)
    return root


def table(n_groups: int, rng: np.random.Generator) -> pd.DataFrame:
    """Groups of 1 to 9 rows, each with a mix of its own; 60, 30 and 10 % of all rows are of the classes."""
    group = np.repeat(np.arange(n_groups), rng.integers(1, 10, n_groups))
    mixes = rng.dirichlet((1.8, 0.9, 0.3), n_groups)
    label = [rng.choice(["a", "b", "c"], p=mixes[one]) for one in group]
    return pd.DataFrame(
        {"id": [f"{i:05d}" for i in rng.permutation(len(group))], "label": label, "group": group.astype(str)}
    )


@pytest.mark.parametrize(("n_groups", "said"), [(9, "95 % interval, unreliable, from 9 groups"), (10, "95 % interval")])
def test_the_curve_says_where_its_interval_is_unreliable(n_groups: int, said: str) -> None:
    done = pd.DataFrame({"accuracy": [0.5, 0.6], "accuracy_low": 0.4, "accuracy_high": 0.7, "n_test_groups": n_groups})
    figure = learning_figure(done.set_index(pd.Index([10, 20])), "accuracy", "accuracy", "net")
    assert figure.axes[0].get_legend_handles_labels()[1][0] == said


@pytest.mark.parametrize("n_groups", [40, 400])
def test_every_beginning_is_a_fair_sample_of_whole_groups(n_groups: int) -> None:
    rng = np.random.default_rng(3)
    rows = table(n_groups, rng)
    order = nested_order(rows, 1)
    assert sorted(order) == list(range(len(rows)))
    taken = rows.iloc[order]
    shares = rows["label"].value_counts(normalize=True)
    for n in (len(rows) // 8, len(rows) // 2):
        own = taken["label"].iloc[:n].value_counts(normalize=True).reindex(shares.index, fill_value=0)
        assert (own - shares).abs().max() < 0.06
        cut = set(taken["group"].iloc[:n]) & set(taken["group"].iloc[n:])
        assert len(cut) <= 1
    shuffled = rng.permutation(len(rows))
    again = rows.iloc[shuffled]
    assert again["id"].iloc[nested_order(again, 1)].tolist() == taken["id"].tolist()
    assert rows["id"].iloc[nested_order(rows, 2)].tolist() != taken["id"].tolist()


def test_a_run_is_trained_on_nested_samples_and_what_is_finished_is_kept(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    packed = open_packed(Path("data/packed/toy"))
    split = read_split(Path("data/splits/toy.csv"), packed)
    learning_curve.run("net", [8], 1)
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(":")[0] for line in lines] == ["8 train objects", "net"]
    first = pd.read_csv(CSV)
    assert first["n"].tolist() == first["n_train"].tolist() == [8]
    assert (first["n_test"] == (split == "test").sum()).all()
    assert (
        first["n_test_groups"] == pd.read_csv("data/splits/toy.csv").query("split == 'test'")["group"].nunique()
    ).all()
    assert ((first["accuracy_low"] <= first["accuracy"]) & (first["accuracy"] <= first["accuracy_high"])).all()
    assert cv2.imread(str(PNG)).std() > 10
    # Another number is trained alone; the table keeps the others.
    learning_curve.run("net", [4], 1)
    assert [line.partition(":")[0] for line in capsys.readouterr().out.splitlines()] == ["4 train objects", "net"]
    assert pd.read_csv(CSV).iloc[1:].reset_index(drop=True).equals(first)
    assert pd.read_csv(CSV)["n"].tolist() == [4, 8]
    learning_curve.run("net", [8, 4], 1)
    lines = capsys.readouterr().out.splitlines()
    assert [line.endswith("(done before)") for line in lines] == [True, True, False]

    client = MlflowClient(f"sqlite:///{project / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("deepsky-learning-curve")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id])
    (parent,) = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    assert parent.info.status == "FINISHED"
    assert parent.data.metrics["accuracy_at_8"] == pytest.approx(first["accuracy"].iloc[0], abs=1e-6)
    assert [file.path for file in client.list_artifacts(parent.info.run_id, "figures")] == ["figures/net.png"]
    assert {run.data.params["n"] for run in runs if run is not parent} == {"4", "8"}

    plan, _ = learning_curve._plan("net", [4, 8], 1)
    for n, smaller in ((8, 4), (4, None)):
        own = set(np.flatnonzero(plan.splits[n] == "train"))
        assert len(own) == n
        assert own <= set(np.flatnonzero(split == "train"))
        assert smaller is None or set(np.flatnonzero(plan.splits[smaller] == "train")) < own
        for part in ("val", "test"):
            assert ((plan.splits[n] == part) == (split == part)).all()
    write_params(project, ["net"], epochs=2)
    assert trainings.finished(learning_curve._plan("net", [4], 1)[0]).empty


def test_bad_input_is_one_line(project: Path) -> None:
    with pytest.raises(ConfigError, match=r"--n 1: leaves out the class .*; raise it"):
        learning_curve.run("net", [1, 8], 1)
    with pytest.raises(ConfigError, match=r"--n 1000: is more than the \d+ train objects; lower it"):
        learning_curve.run("net", [1000], 1)
    with pytest.raises(ConfigError, match="--seed -1: is out of range"):
        learning_curve.run("net", [4], -1)
    answer = CliRunner().invoke(cli, ["learning-curve", "net", "--n", "4,x"])
    assert answer.exit_code == 2
    assert "'4,x' is not like 100,200,400" in answer.output
