import pytest
from ruamel.yaml import YAML

from deepsky.commands import drop
from deepsky.errors import ConfigError
from deepsky.experiment.experiment import read_experiment
from tests.conftest import ROOT

TEXT = """\
datasets:
  frames:
    sdss: {folder: data/raw/frames, catalogue: data/catalogue.csv}
    field: {folder: data/external/field/frames, catalogue: data/external/field/catalogue.csv}
  pictures:
    sdss_jpg: {format: images, source: data/raw/sdss_jpg}
    stsci_jpg: {format: images, source: data/raw/stsci_jpg}
    galaxy_zoo: {format: galaxy_zoo_challenge, source: data/raw/simulated/galaxy_zoo}
    galaxy_zoo_classes: {format: galaxy_zoo_challenge, source: data/raw/simulated/galaxy_zoo}
    galaxy_zoo1: {format: galaxy_zoo1, source: /home/me/zoo1}   # my own by now
    galaxy10: {format: galaxy10, source: data/raw/simulated/Galaxy10_DECals.h5}
    mine: {format: images, source: data/external/mine}

train: {epochs: 3}

compare:                       # every dataset by every network
  datasets: {sdss_rgb, sdss_cutouts, sdss_jpg, mine}
  networks: {mobilenet, cnn_small}

networks:
  cnn_small: {input_size_px: 64}

runs:
  of_zoo: {dataset: galaxy_zoo, network: regression_512}
  of_zoo1: {dataset: galaxy_zoo1, network: mobilenet}
  of_mine: {dataset: mine, network: cnn_small}      # the best so far
  of_frames: {dataset: sdss_frames, network: vgg16}

tune:
  run: sdss_cutouts-mobilenet  # of make tune without RUN=
  trials: 3
"""


@pytest.fixture
def params(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_text(TEXT)
    return tmp_path / "params.yaml"


def parsed(path):
    return YAML(typ="safe").load(path)


def test_the_demo_goes_and_my_own_stays(params, capsys):
    drop.run(["demo"])
    left = parsed(params)
    assert left["datasets"] == {
        "frames": {"field": parsed(TEXT)["datasets"]["frames"]["field"]},
        "pictures": {name: parsed(TEXT)["datasets"]["pictures"][name] for name in ("galaxy_zoo1", "mine")},
    }
    assert left["compare"] == {"datasets": {"mine": None}, "networks": {"mobilenet": None, "cnn_small": None}}
    assert list(left["runs"]) == ["of_zoo1", "of_mine"]
    assert left["tune"] == {"trials": 3}
    assert (left["train"], left["networks"]) == ({"epochs": 3}, {"cnn_small": {"input_size_px": 64}})
    text = params.read_text()
    assert "  datasets: {mine}\n" in text
    for comment in ("# my own by now", "# every dataset by every network", "# the best so far"):
        assert comment in text
    told = capsys.readouterr().out
    for line in ("datasets.frames.sdss", "compare.datasets.sdss_rgb", "runs.of_frames", "runs.of_zoo", "tune.run"):
        assert f"removed {line}\n" in told
    assert "-    sdss_jpg: {format: images, source: data/raw/sdss_jpg}\n" in told
    drop.run(["demo"])
    assert params.read_text() == text
    assert "has nothing of the demo" in capsys.readouterr().out


def test_a_comparison_without_datasets_or_networks_is_none(params):
    drop.run(["demo", "mine"])
    assert "compare" not in parsed(params)
    assert list(parsed(params)["runs"]) == ["of_zoo1"]
    params.write_text(TEXT)
    drop.run(["mobilenet", "cnn_small"])
    left = parsed(params)
    assert "compare" not in left
    assert "networks" not in left
    assert list(left["runs"]) == ["of_zoo", "of_frames"]
    assert left["tune"] == {"trials": 3}


@pytest.mark.parametrize(
    ("name", "gone"),
    [
        ("of_mine", ["runs.of_mine"]),
        ("mine", ["datasets.pictures.mine", "compare.datasets.mine", "runs.of_mine"]),
        ("sdss_cutouts", ["compare.datasets.sdss_cutouts", "tune.run"]),
        ("field", ["datasets.frames.field"]),
        (
            "sdss",
            ["datasets.frames.sdss", "compare.datasets.sdss_rgb", "compare.datasets.sdss_cutouts", "runs.of_frames",
             "tune.run"],
        ),
        ("cnn_small", ["networks.cnn_small", "compare.networks.cnn_small", "runs.of_mine"]),
    ],
)  # fmt: skip
def test_what_refers_to_a_name_goes_with_it(params, capsys, name, gone):
    drop.run([name])
    told = capsys.readouterr().out.splitlines()
    assert [line.removeprefix("removed ") for line in told if line.startswith("removed ")] == gone
    left = parsed(params)
    for place in gone:
        *keys, last = place.split(".")
        section = left
        for key in keys:
            section = section.get(key, {})
        assert last not in section, place


def test_nothing_learns_once_the_demo_has_gone_from_the_projects_own_file(params):
    params.write_text((ROOT / "params.yaml").read_text())
    assert read_experiment(params).runs
    drop.run(["demo"])
    left = read_experiment(params)
    assert (left.runs, left.datasets) == ({}, {})
    assert left.split == read_experiment(ROOT / "params.yaml").split


def test_an_unknown_name_is_refused_and_nothing_goes(params):
    for names in (["nothing"], ["mine", "nothing"], ["$(touch x)"], ["datasets"]):
        with pytest.raises(ConfigError, match=r"is no dataset, run or network there; choose of: sdss, field, sdss_jpg"):
            drop.run(names)
    assert params.read_text() == TEXT


def test_sections_that_are_absent_are_empty(params):
    params.write_text("tracking: {experiment: sky}\nruns: null\n")
    drop.run(["demo"])
    with pytest.raises(ConfigError, match="choose of: it has none"):
        drop.run(["mine"])
