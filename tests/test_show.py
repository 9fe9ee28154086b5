"""deepsky show, deepsky small, and which stages --only stands for."""

import shutil
from pathlib import Path

import pytest

from deepsky.commands import show, small
from deepsky.commands.repro import stages_of
from deepsky.errors import ConfigError
from deepsky.experiment.experiment import read_experiment

PARAMS = Path(__file__).resolve().parents[1] / "params.yaml"


@pytest.fixture
def project(tmp_path, monkeypatch) -> Path:
    shutil.copy(PARAMS, tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    return tmp_path


def row(text: str, key: str) -> list[str]:
    return next(line.split() for line in text.splitlines() if key in line.split()[:2])


def test_show_says_where_each_number_comes_from(project, capsys):
    show.run("zoo1_fine_tune")
    text = capsys.readouterr().out
    assert row(text, "epochs") == ["epochs", "4", "runs.zoo1_fine_tune"]
    assert row(text, "learning_rate") == ["+", "learning_rate", "0.001", "train"]
    assert row(text, "start") == ["+", "start", "pretrained", "default"]
    assert "-S +runs.zoo1_fine_tune.KEY=VALUE" in text
    assert "n_views" not in text, "of heads only"
    show.run("sdss_jpg-cnn_small")
    text = capsys.readouterr().out
    assert row(text, "epochs") == ["epochs", "20", "networks.cnn_small"]
    assert "-S networks.cnn_small.KEY=VALUE" in text


def test_show_names_what_there_is(project):
    with pytest.raises(ConfigError, match=r"run zoo1_finetune: is not in params.yaml; choose one of: zoo1_fine_tune"):
        show.run("zoo1_finetune")


def test_small_is_the_same_experiment_in_miniature(project, capsys):
    before = read_experiment()
    small.run()
    after, said = read_experiment(), capsys.readouterr().out
    assert "-  n_fields: 16" in said
    assert after.catalogue.n_fields < before.catalogue.n_fields
    assert after.datasets == before.datasets
    kept = {name: run for name, run in before.runs.items() if not name.endswith("mobilenet")}
    assert after.runs.keys() == kept.keys()
    for name, run in after.runs.items():
        assert run.recipe.epochs <= 2
        assert run.recipe.input_size_px <= 48
        assert (run.recipe.learn, run.recipe.network) == (kept[name].recipe.learn, kept[name].recipe.network)
    small.run()
    assert "is a miniature already" in capsys.readouterr().out


def test_only_takes_datasets_frames_and_runs(project):
    experiment = read_experiment()
    assert stages_of(experiment, ["zoo_frozen"]) == ["train_run@zoo_frozen"]
    assert stages_of(experiment, ["sdss_jpg-mobilenet", "galaxy_zoo1"]) == [
        "train@sdss_jpg-mobilenet",
        "train_run@zoo1_fine_tune",
    ]
    assert len(stages_of(experiment, ["sdss"])) == 9, "three datasets by three networks"
    with pytest.raises(
        ConfigError, match=r"--only nothing: is no dataset or run of params.yaml; choose of: sdss_frames"
    ):
        stages_of(experiment, ["nothing"])
