import csv
import math
from itertools import pairwise

import matplotlib.image
import numpy as np
import optuna
import pytest
from optuna.trial import TrialState

from deepsky.tuning import analysis, figures
from deepsky.tuning.analysis import importance_of, results_of
from deepsky.tuning.figures import draw_study

PICTURES = {"history.png", "importances.png", "parallel.png", "slices.png"}
TABLES = {"trials.csv", "importances.csv"}


def _suggest(trial):
    """A space as ours: the units of a layer are there when the layer is."""
    layers = trial.suggest_int("layers", 0, 3)
    for layer in range(1, layers + 1):
        trial.suggest_int(f"units_{layer}", 16, 1024, log=True)
    if layers:
        trial.suggest_categorical("activation", ["relu", "gelu", "tanh"])
    trial.suggest_categorical("batch_norm", [False, True])
    rate = trial.suggest_float("learning_rate", 1e-5, 1e-1, log=True)
    return 0.9 - 0.08 * (math.log10(rate) + 3) ** 2, 3072 + 1000 * sum(
        value for name, value in trial.params.items() if name.startswith("units")
    )


def _study(folder, n, directions=("maximize",), fate=lambda number: TrialState.COMPLETE):
    study = optuna.create_study(
        study_name="sky",
        storage=f"sqlite:///{folder}/tuning.db" if 0 < n < 10 else None,
        directions=directions,
        sampler=optuna.samplers.RandomSampler(seed=2),
    )
    for number in range(n):
        trial = study.ask()
        values = _suggest(trial)[: len(directions)]
        if fate(number) == TrialState.PRUNED:
            trial.report(values[0] / 2, 1)
        if fate(number) == TrialState.FAIL:
            trial.set_user_attr("reason", "val_loss is not finite")
        if fate(number) == TrialState.COMPLETE:
            study.tell(trial, values)
        elif fate(number) != TrialState.RUNNING:
            study.tell(trial, state=fate(number))
    return study


def _rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def _files(folder):
    return {path.name for path in folder.iterdir()}


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    """40 trials: 29 complete, 10 pruned or failed, one still running."""
    fates = {0: TrialState.FAIL, 5: TrialState.PRUNED}
    study = _study(
        tmp_path_factory.mktemp("mixed"),
        40,
        fate=lambda n: TrialState.RUNNING if n == 39 else fates.get(n % 8, TrialState.COMPLETE),
    )
    folder = tmp_path_factory.mktemp("figures") / "made on the way"
    draw_study(study, folder, ["f1_macro"])
    return study, folder


def test_every_picture_and_table_is_there(mixed):
    _, folder = mixed
    assert _files(folder) == PICTURES | TABLES
    for name in PICTURES:
        picture = matplotlib.image.imread(folder / name)[:, :, :3]
        assert min(picture.shape[:2]) > 300
        assert (picture.min(axis=2) < 0.9).mean() > 0.003  # something is drawn on the white


def test_trials_csv_has_every_trial(mixed):
    study, folder = mixed
    rows = _rows(folder / "trials.csv")
    assert [row["state"] for row in rows] == [trial.state.name for trial in study.trials]
    assert [row["reason"] for row in rows[:2]] == ["val_loss is not finite", ""]
    for row, trial in zip(rows, study.trials, strict=True):
        assert int(row["number"]) == trial.number
        assert {name: row[name] for name in trial.params} == {name: str(v) for name, v in trial.params.items()}
        assert row["f1_macro"] == (str(trial.value) if trial.value is not None else "")
    assert list(rows[0]) == [
        "number", "state", "f1_macro", "layers", "units_1", "units_2", "units_3", "activation", "batch_norm",
        "learning_rate", "seconds", "reason",
    ]  # fmt: skip


def test_importances_name_what_mattered_and_leave_nothing_out(mixed):
    study, folder = mixed
    rows = _rows(folder / "importances.csv")
    complete = [trial for trial in study.trials if trial.state == TrialState.COMPLETE]
    assert rows[0]["parameter"] == "learning_rate"
    assert float(rows[0]["f1_macro"]) > 0.6
    assert sum(float(row["f1_macro"]) for row in rows) == pytest.approx(1, abs=1e-3)
    counts = {row["parameter"]: int(row["trials"]) for row in rows}
    assert set(counts) == {name for trial in complete for name in trial.params}
    assert counts["units_2"] == sum("units_2" in trial.params for trial in complete) < len(complete)


def test_a_conditional_parameter_that_decides_is_found(tmp_path):
    study = _study(tmp_path, 0)
    for number in range(60):
        trial = study.ask()
        _suggest(trial)
        study.tell(trial, math.log(trial.params.get("units_1", 128)) + 0.01 * number)
    results = results_of(study, ["f1_macro"])
    importance = importance_of(results.objectives[0], results)
    assert max(importance.shares, key=importance.shares.__getitem__) == "units_1"
    assert importance.explained > 0.6


def test_noise_explains_nothing(tmp_path):
    study, rng = _study(tmp_path, 0), np.random.default_rng(1)
    for _ in range(60):
        trial = study.ask()
        _suggest(trial)
        study.tell(trial, rng.normal())
    results = results_of(study, ["f1_macro"])
    assert importance_of(results.objectives[0], results).explained < 0.1


def test_equal_values_have_no_importances(tmp_path):
    study = _study(tmp_path, 0)
    for _ in range(12):
        trial = study.ask()
        _suggest(trial)
        study.tell(trial, 0.5)
    draw_study(study, tmp_path, ["f1_macro"])
    assert {row["f1_macro"] for row in _rows(tmp_path / "importances.csv")} == {"0.0000"}


def test_two_objectives_have_a_front(tmp_path):
    study = _study(tmp_path, 40, ("maximize", "minimize"))
    draw_study(study, tmp_path, ["f1_macro", "parameters"])
    assert _files(tmp_path) == PICTURES | TABLES | {"pareto.png", "slices_parameters.png"}
    rows = _rows(tmp_path / "importances.csv")
    most = max(rows, key=lambda row: float(row["parameters"]))["parameter"]
    assert most.startswith(("layers", "units"))
    front = figures._pareto(results_of(study, ["f1_macro", "parameters"])).axes[0].lines[1].get_xydata()
    assert sorted(map(tuple, front)) == sorted({(trial.values[1], trial.values[0]) for trial in study.best_trials})


@pytest.mark.parametrize(
    ("n", "files"),
    [
        (0, {"trials.csv", "figures.txt"}),
        (1, {"trials.csv", "figures.txt"}),
        (2, {"trials.csv", "figures.txt"} | PICTURES - {"importances.png"}),
    ],
)
def test_too_few_trials_say_what_is_missing(tmp_path, n, files):
    study = _study(tmp_path, n)
    draw_study(study, tmp_path / "figures", ["f1_macro"])
    assert _files(tmp_path / "figures") == files
    assert f"there are {n}" in (tmp_path / "figures" / "figures.txt").read_text()


def test_the_note_goes_when_there_are_enough(tmp_path):
    study = _study(tmp_path, 9)
    draw_study(study, tmp_path / "figures", ["f1_macro"])
    assert (tmp_path / "figures" / "figures.txt").exists()
    trial = study.ask()
    study.tell(trial, _suggest(trial)[0])
    draw_study(study, tmp_path / "figures", ["f1_macro"])
    assert _files(tmp_path / "figures") == PICTURES | TABLES


def test_a_line_falls_to_the_bottom_where_the_trial_has_no_such_parameter(mixed):
    study, _ = mixed
    results = results_of(study, ["f1_macro"])
    (lines,) = figures._parallel(results).axes[0].collections
    heights = np.array([segment[:, 1] for segment in lines.get_segments()])
    names = ["f1_macro", *(parameter.name for parameter in results.parameters)]
    units_3 = heights[:, names.index("units_3")]
    assert (units_3 < 0).sum() == len(results.numbers) - results.parameters[names.index("units_3") - 1].used > 0
    assert (heights[:, names.index("learning_rate")] >= 0).all()


def test_many_trials_are_thinned_and_the_title_says_so(tmp_path, monkeypatch):
    study = _study(tmp_path, 60)
    monkeypatch.setattr(analysis, "MOST_TRIALS", 30)
    monkeypatch.setattr(figures, "MOST_TRIALS", 30)
    monkeypatch.setattr(figures, "_LINES", 20)
    results = results_of(study, ["f1_macro"])
    bars = figures._importance_bars(results, {"f1_macro": importance_of(results.objectives[0], results)})
    assert "30 of 60 complete trials" in bars.get_suptitle()
    parallel = figures._parallel(results)
    assert "20 of 60 complete trials" in parallel.get_suptitle()
    drawn = [segment[0, 1] for segment in parallel.axes[0].collections[0].get_segments()]
    assert (len(drawn), min(drawn), max(drawn)) == (20, 0, 1)  # the worst and the best among them


@pytest.mark.parametrize("limits", [(44, 731), (16, 1024), (1e-7, 1e-2), (90, 200)])
def test_labels_of_a_log_axis_do_not_overlap(limits):
    figure = figures._figure(3.0, 2.4, "title", "")  # a panel of the slices
    (axes,) = figures._panels(figure, 1, 1)
    axes.set_xlim(*limits)
    figures._log_axis(axes, "x")
    figure.draw_without_rendering()
    ticks = [*axes.xaxis.get_major_ticks(), *axes.xaxis.get_minor_ticks()]
    texts = [tick.label1 for tick in ticks if limits[0] <= tick.get_loc() <= limits[1] and tick.label1.get_text()]
    boxes = sorted((box.x0, box.x1) for box in (text.get_window_extent() for text in texts))
    assert boxes
    assert all(before[1] < after[0] for before, after in pairwise(boxes))
