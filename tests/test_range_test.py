"""deepsky lr-range: the rates, the suggestion, and what is written and logged."""

from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import pytest
from mlflow.tracking import MlflowClient

from deepsky.commands import lr_range
from deepsky.commands.jobs import job_maker, packed_of, split_of
from deepsky.datasets.packed import open_packed
from deepsky.errors import ConfigError, DataError
from deepsky.evaluation.range_figure import range_figure
from deepsky.experiment.experiment import read_experiment
from deepsky.networks.finetune import base_of
from deepsky.networks.params import AugmentParams
from deepsky.training.batches import TrainBatches
from deepsky.training.examples import Examples, read_split
from deepsky.training.fit import make_optimizer
from deepsky.training.range_test import HIGHEST, LOWEST, raise_rate, suggest_rate
from tests.run_project import NET, write_params, write_project
from tests.test_finetune import TINY_TOP


def curve(n_steps: int, steepest: float) -> pd.DataFrame:
    """A loss that falls from 2 to 1 around one rate and rises where it is a hundred times higher."""
    rates = np.geomspace(LOWEST, HIGHEST, n_steps)
    decades = np.log10(rates / steepest)
    loss = 1 + 1 / (1 + np.exp(3 * decades)) + np.where(decades > 2, np.exp(6 * (decades - 2)) - 1, 0)
    return pd.DataFrame({"step": range(1, n_steps + 1), "learning_rate": rates, "loss": loss, "smoothed": loss})


@pytest.mark.parametrize("steepest", [1e-5, 3e-4, 1e-2])
def test_the_suggested_rate_is_where_the_loss_falls_fastest(steepest: float) -> None:
    suggested = suggest_rate(curve(141, steepest))
    assert suggested is not None
    assert abs(np.log10(suggested / steepest)) < 0.06
    rising = pd.DataFrame({"learning_rate": [0.1, 0.2, 0.3], "smoothed": [1.0, 1.1, 1.2]})
    assert suggest_rate(rising) is None


def learner_and_batches(scale: float = 1.0) -> tuple[keras.Model, TrainBatches]:
    rng = np.random.default_rng(1)
    inputs = scale * rng.normal(size=(48, 4)).astype(np.float32)
    targets = np.eye(2, dtype=np.float32)[(inputs[:, 0] > 0).astype(int)]
    examples = Examples(inputs, np.arange(48), targets, np.full(48, "train"))
    features = keras.Input((4,), name="features")
    layer = keras.layers.Dense(2, kernel_initializer="zeros", name="logits")
    model = keras.Model(features, layer(features))
    model.compile(optimizer=keras.optimizers.SGD(0.5), loss=keras.losses.MeanSquaredError())
    return model, TrainBatches(examples, NET)


def test_rates_grow_by_a_constant_factor_and_each_step_uses_its_own() -> None:
    model, batches = learner_and_batches()
    table = raise_rate(model, batches, 29)  # more than one epoch of 6 steps
    ratios = table["learning_rate"].to_numpy()[1:] / table["learning_rate"].to_numpy()[:-1]
    np.testing.assert_allclose(ratios, 10**0.25, rtol=1e-6)
    assert table["learning_rate"].iloc[0] == LOWEST
    # By hand, over the same batches: plain gradient descent on the mean squared error.
    _, again = learner_and_batches()
    kernel, bias, losses = np.zeros((4, 2)), np.zeros(2), []
    for step, rate in enumerate(table["learning_rate"]):
        if step and step % 6 == 0:
            again.on_epoch_end()
        inputs, targets = again[step % 6]
        wrong = inputs @ kernel + bias - targets
        losses.append((wrong**2).mean())
        slope = 2 * wrong / wrong.size
        kernel, bias = kernel - rate * inputs.T @ slope, bias - rate * slope.sum(axis=0)
    np.testing.assert_allclose(table["loss"], losses, rtol=1e-4)


def test_the_rate_of_every_optimizer_can_be_raised() -> None:
    for name in ("adam", "adamw", "adamax", "sgd"):
        model, batches = learner_and_batches()
        optimizer = make_optimizer(replace(NET, optimizer=name), n_steps=6)
        model.compile(optimizer=optimizer, loss=keras.losses.MeanSquaredError())
        table = raise_rate(model, batches, 5)
        assert float(optimizer.learning_rate) == pytest.approx(table["learning_rate"].iloc[-1])


def test_it_stops_where_the_loss_diverges() -> None:
    model, batches = learner_and_batches(scale=30.0)
    table = raise_rate(model, batches, 100)
    assert 50 < len(table) < 100
    assert np.isfinite(table).all(axis=None)
    assert table["learning_rate"].iloc[-1] < 0.1


def test_inputs_that_are_no_numbers_are_told() -> None:
    model, batches = learner_and_batches(scale=float("nan"))
    with pytest.raises(DataError, match="loss: is not finite at the lowest learning rate"):
        raise_rate(model, batches, 30)


def weights_of(learner: keras.Model) -> dict[str, np.ndarray]:
    return {weight.path: keras.ops.convert_to_numpy(weight) for weight in learner.get_layer("tiny_tail").weights}


class StartOfPhases(keras.callbacks.Callback):
    """Remembers the weights with which each phase begins."""

    def __init__(self) -> None:
        super().__init__()
        self.weights = list[dict[str, np.ndarray]]()

    def on_train_begin(self, logs: object = None) -> None:
        self.weights.append(weights_of(self.model))


def test_a_fine_tuning_is_tested_from_where_its_rate_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_project(tmp_path, monkeypatch)
    write_params(
        tmp_path, ["fine"], keep="best", epochs=1, precision="mixed", augment=AugmentParams(), head_epochs=3,
        head_learning_rate=0.1,
    )  # fmt: skip
    run = read_experiment().find("fine")
    packed = open_packed(packed_of(run.recipe))
    split, rows = read_split(split_of(run.recipe), packed), packed.rows.copy()
    rows.loc[split == "val", "label"] = "BLUE"  # so that val_loss gets worse, and the last weights are not the best
    packed = replace(packed, rows=rows)
    with job_maker(run, packed, np.arange(len(packed.images)), batch_size=8) as make_job:
        phases = StartOfPhases()
        history = make_job(split).fit([phases])
        learner, batches = lr_range._start(make_job(split))
    assert history["val_loss"].iloc[:3].idxmin() != 2
    head, whole = phases.weights
    assert not np.array_equal(head["probabilities/bias"], whole["probabilities/bias"])
    np.testing.assert_equal(weights_of(learner), whole)
    first = TrainBatches(make_job(split).examples(), run.recipe, 3)[0]  # the first three orders were the head's
    for got, wanted in zip(batches[0], first, strict=True):
        np.testing.assert_array_equal(got, wanted)
    assert {weight.path.split("/")[0] for weight in learner.trainable_weights} == {*TINY_TOP, "probabilities"}
    assert base_of(learner.get_layer("tiny_tail")).get_layer("conv1").compute_dtype == "bfloat16"


def test_the_command_writes_and_logs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    project = write_project(tmp_path, monkeypatch)
    for name in ("net", "toy-cnn_small", "heads"):
        lr_range.run(name, 24)
        out = project / "evaluation/lr_range" / name
        assert {path.name for path in out.iterdir()} == {"range.csv", "range.png"}
        table = pd.read_csv(out / "range.csv")
        assert list(table.columns) == ["step", "learning_rate", "loss", "smoothed"]
        assert capsys.readouterr().out.splitlines()[-1].startswith(f"{name}: the loss ")
    assert not (project / "models/trained").exists()
    client = MlflowClient(f"sqlite:///{project / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("deepsky-lr-range")
    assert experiment is not None
    logged = {run.data.tags["mlflow.deepsky.run"]: run for run in client.search_runs([experiment.experiment_id])}
    assert set(logged) == {"net", "toy-cnn_small", "heads"}
    run = logged["heads"]
    assert (run.data.params["learning_rate"], run.data.params["n_views"]) == ("0.003", "2")
    assert run.info.status == "FINISHED"
    points = client.get_metric_history(run.info.run_id, "smoothed")
    assert [point.step for point in points] == list(table["step"])
    assert {file.path for file in client.list_artifacts(run.info.run_id)} == {"lineage", "range.csv", "range.png"}
    suggested = suggest_rate(table)
    assert suggested is not None
    assert run.data.metrics["suggested_learning_rate"] == pytest.approx(suggested, rel=1e-4)
    with pytest.raises(ConfigError, match="--steps 3: is out of range"):
        lr_range.run("net", 3)


def test_the_picture_marks_the_suggestion_and_the_own_rate() -> None:
    (axes,) = range_figure(curve(57, 1e-3), 1e-3, 2e-2, "toy").axes
    marks = {line.get_label(): line for line in axes.lines}
    assert "falls fastest: 1.0e-03" in marks
    assert list(marks["the recipe's: 2.0e-02"].get_xdata()) == [2e-2, 2e-2]
    assert axes.get_ylim()[1] < 3  # the diverging end does not flatten the rest
    (axes,) = range_figure(curve(57, 1e-3), None, 2e-2, "toy").axes
    assert not any("fastest" in str(line.get_label()) for line in axes.lines)
