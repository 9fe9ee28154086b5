"""params.yaml read whole: inheritance, and every mistake told at once."""

import subprocess
import sys
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from deepsky.errors import ConfigError, ConfigErrors
from deepsky.experiment.experiment import read_experiment
from deepsky.experiment.fingerprint import Code
from deepsky.experiment.plan import plan_stages
from deepsky.training.recipe import Origin

PARAMS = Path(__file__).resolve().parents[1] / "params.yaml"
PICTURES = {
    "toy": {
        "format": "images", "source": "data/external/toy", "id_column": "id", "label_column": "class",
        "classes": ["a", "b"], "size_px": 32,
    },
    "votes": {"format": "galaxy_zoo_challenge", "source": "data/zoo", "target": "fractions", "size_px": 32},
}  # fmt: skip


def written(tmp_path: Path, **sections) -> Path:
    path = tmp_path / "params.yaml"
    YAML(typ="safe").dump({"datasets": {"pictures": PICTURES}, **sections}, path)
    return path


def read(tmp_path: Path, **sections):
    return read_experiment(written(tmp_path, **sections))


def lines_of(tmp_path: Path, **sections) -> list[str]:
    path = written(tmp_path, **sections)
    with pytest.raises(ConfigErrors) as caught:
        read_experiment(path)
    return [str(error).replace(f"{path}: ", "") for error in caught.value.errors]


def test_an_empty_file_is_an_experiment_without_runs(tmp_path):
    path = tmp_path / "params.yaml"
    path.write_text("# nothing\n")
    experiment = read_experiment(path)
    assert not experiment.runs
    assert not experiment.datasets
    assert experiment.on_bad_file == "stop"
    assert experiment.split.test_fraction == 0.2


def test_what_the_file_says_is_what_the_code_has_by_default(tmp_path):
    """A section may be left out: the defaults in the code are those of the project's own file."""
    own, raw = read_experiment(PARAMS), YAML(typ="safe").load(PARAMS)
    path = tmp_path / "params.yaml"
    YAML(typ="safe").dump({key: raw[key] for key in ("datasets", "compare", "networks", "runs")}, path)
    bare = read_experiment(path)
    assert {name: run.settings for name, run in own.runs.items()} == {n: run.settings for n, run in bare.runs.items()}
    for section in ("catalogue", "archive", "download", "simulate", "split", "weights", "features", "tune", "tracking"):
        assert getattr(own, section) == getattr(bare, section), section


def test_dataset_and_network_are_a_run(tmp_path):
    experiment = read(tmp_path, runs={"one": {"dataset": "toy", "network": "mobilenet"}})
    recipe = experiment.run("one")
    assert (recipe.start, recipe.learn, recipe.answer, recipe.epochs) == ("pretrained", "head", "softmax", 10)
    assert experiment.find("one").places["epochs"] == "default"


def test_without_a_test_part_the_val_rows_choose_nothing(tmp_path):
    run = {"dataset": "toy", "network": "mobilenet"}
    fixed, given = {"keep": "last"}, {"given": {"format": "mnist", "source": "data/mnist", "size_px": 32}}
    read(tmp_path, split={"test_fraction": 0}, runs={"one": run | fixed})
    for choice in ({"keep": "best"}, {"patience": 3}, {"origin": {"study": "s", "trial": 1, "run": "one"}}):
        (line,) = lines_of(tmp_path, split={"test_fraction": 0}, runs={"one": run | fixed | choice})
        assert line.startswith("run one: is scored on the val rows, as test_fraction is 0, and is also chosen by them")
    pictures = {"datasets": {"pictures": PICTURES | given}}
    read(tmp_path, split={"test_fraction": 0}, runs={"two": run | {"dataset": "given"}}, **pictures)


def test_a_run_inherits_from_its_network_and_from_train(tmp_path):
    experiment = read(
        tmp_path,
        train={"epochs": 3, "learning_rate": 0.5, "augment": {"flip": True, "zoom": 0.1}},
        networks={"cnn_small": {"epochs": 4}},
        runs={"one": {"dataset": "toy", "network": "cnn_small", "batch_size": 7, "augment": {"flip": False}}},
    )
    found = experiment.find("one")
    assert (found.recipe.epochs, found.recipe.learning_rate, found.recipe.batch_size) == (4, 0.5, 7)
    assert (found.recipe.augment.flip, found.recipe.augment.zoom) == (False, 0.1)  # key by key
    assert found.places["epochs"] == "networks.cnn_small"
    assert found.places["learning_rate"] == "train"
    assert found.places["batch_size"] == "runs.one"


def test_compare_makes_a_run_of_every_pair(tmp_path):
    experiment = read(
        tmp_path, compare={"datasets": {"toy": None, "votes": None}, "networks": {"cnn_small": None, "vgg16": None}}
    )
    assert list(experiment.runs) == ["toy-cnn_small", "toy-vgg16", "votes-cnn_small", "votes-vgg16"]
    assert experiment.run("votes-vgg16").answer == "tree"
    assert experiment.find("toy-vgg16").label == "vgg16"


def test_any_dataset_by_any_network_can_be_asked_for(tmp_path):
    experiment = read(tmp_path, runs={"one": {"dataset": "toy", "network": "mobilenet"}})
    assert experiment.run("toy-resnet50").network == "resnet50"
    with pytest.raises(ConfigError, match=r"run on: is not in params.yaml; choose one of: one"):
        experiment.run("on")


def test_what_has_no_effect_is_dropped_where_inherited_and_refused_where_said(tmp_path):
    experiment = read(
        tmp_path,
        train={"hidden_units": [8], "label_smoothing": 0.1, "mixup": 0.3},
        runs={
            "own": {"dataset": "toy", "network": "cnn_small"},
            "votes_head": {"dataset": "votes", "network": "mobilenet"},
        },
    )
    assert "hidden_units" not in experiment.find("own").settings
    assert experiment.find("own").settings["mixup"] == 0.3
    assert "label_smoothing" not in experiment.find("votes_head").settings
    assert set(
        lines_of(
            tmp_path,
            runs={
                "own": {"dataset": "toy", "network": "cnn_small", "hidden_units": [8]},
                "head": {"dataset": "toy", "network": "mobilenet", "mixup": 0.3, "augment": {"flip": True}},
                "votes_head": {"dataset": "votes", "network": "mobilenet", "label_smoothing": 0.1},
            },
        )
    ) == {
        "runs.own.hidden_units: has no effect here: cnn_small ends in layers of its own; take it away",
        "runs.head.mixup: has no effect here: only a head learns, on cached features; take it away",
        "runs.head.augment: has no effect here: a head sees random views only where n_views is above 0; take it away",
        "runs.votes_head.label_smoothing: has no effect here: vote fractions have no classes; take it away",
    }


def test_origin_of_an_adopted_run(tmp_path):
    origin = {"study": "s", "trial": 3, "run": "toy-mobilenet"}
    experiment = read(tmp_path, runs={"t": {"dataset": "toy", "network": "mobilenet", "origin": origin}})
    assert experiment.run("t").origin == Origin(study="s", trial=3, run="toy-mobilenet")
    assert experiment.find("t").settings["origin"] == origin


def test_all_mistakes_are_told_together(tmp_path):
    found = lines_of(
        tmp_path,
        train={"epochs": True, "learnin_rate": 1},
        networks={"mobilnet": {}},
        compare={"datasets": {"toi": None}, "networks": ["mobilenet"], "more": {}},
        runs={
            "no_network": {"dataset": "toy"},
            "no_such": {"dataset": "nowhere", "network": "mobilenet"},
            "ba-d name": {"dataset": "toy", "network": "mobilenet"},
            "mobilenet": {"dataset": "toy", "network": "mobilenet"},
            "late": {"dataset": "toy", "network": "mobilenet", "learn": "alles"},
        },
        split={"seed": -1},
        trian={},
    )
    text = "\n".join(found)
    for expected in (
        "section 'trian' is unknown; did you mean train?",
        "split: seed must lie between 0",
        "train.epochs: True is not a whole number",
        "train: 'learnin_rate' is unknown",
        "networks: network 'mobilnet' is unknown",
        "compare: 'more' is unknown",
        "compare.networks: ['mobilenet'] is not a set; write it as {a, b}",
        "compare.datasets: 'toi' is unknown; choose one of: toy, votes",
        "runs.no_network: 'network' is missing",
        "runs.no_such: dataset 'nowhere' is unknown; choose one of: toy, votes",
        "runs.ba-d name: 'ba-d name' is no name; use letters, digits and _",
        "runs.mobilenet: is the name of a network",
    ):
        assert expected in text, expected
    assert len(found) == len(set(found))


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("learning_rate", float("inf"), "inf is not finite"),
        ("learning_rate", float("nan"), "nan is not finite"),
        ("learning_rate", 1e300, "learning_rate must lie above 0 and not above 1000"),
        ("learning_rate", "fast", "'fast' is not a number"),
        ("learning_rate", True, "True is not a number"),
        ("epochs", 10**30, "epochs must lie between 1 and 100000"),
        ("epochs", 1.5, "1.5 is not a whole number"),
        ("batch_size", 0, "batch_size must lie between 1 and 65536, not 0"),
        ("test_views", True, "True is unknown; choose one of: 1, 2, 4, 8"),
        ("patience", False, "False is not a whole number"),
        ("hidden_units", [4, -1], "hidden_units [4, -1] must all lie between"),
        ("hidden_units", 4, "4 is not a list"),
        ("optimizer", "adm", "'adm' is unknown; choose one of: adam, adamw, adamax, sgd"),
    ],
)
def test_values_that_no_run_may_have(tmp_path, key, value, says):
    learn = {} if key == "hidden_units" else {"learn": "all"}
    found = lines_of(tmp_path, runs={"one": {"dataset": "toy", "network": "mobilenet", **learn, key: value}})
    assert len(found) == 1
    assert says in found[0]
    assert found[0].startswith("runs.one")


def test_start_and_learn_must_fit_the_network(tmp_path):
    found = lines_of(
        tmp_path,
        runs={
            "a": {"dataset": "toy", "network": "cnn_small", "start": "pretrained"},
            "b": {"dataset": "toy", "network": "mobilenet", "start": "scratch", "learn": 2},
            "c": {"dataset": "votes", "network": "mobilenet", "answer": "softmax"},
            "d": {"dataset": "toy", "network": "mobilenet", "learn": 0},
        },
    )
    assert "network cnn_small has no pretrained weights" in found[0]
    assert "start: scratch draws the whole network" in found[1]
    assert "answer softmax is for classes" in found[2]
    assert "learn 0 must be head, all, or how many" in found[3]


@pytest.mark.parametrize(
    ("section", "says"),
    [
        ("frames", "its entries stand under datasets.frames"),
        ("images", "format: images"),
        ("collections", "datasets.pictures"),
        ("backbones", "compare.networks"),
        ("scratch", "compare.networks"),
        ("recipes", "stand under runs"),
        ("tuned", "with origin"),
    ],
)
def test_sections_of_older_files_say_what_they_became(tmp_path, section, says):
    (line,) = lines_of(tmp_path, **{section: {}})
    assert line.startswith(f"{section}: is a section of older files; ")
    assert says in line


def test_keys_of_older_files_say_what_they_became(tmp_path):
    old = {"weights": {"networks": ["mobilenet"]}, "tune": {"dataset": "a", "network": "b", "scratch": {}}}
    found = lines_of(tmp_path, **old)
    assert [line.partition(": ")[0] for line in found] == [
        "weights.networks", "tune.dataset", "tune.network", "tune.scratch",
    ]  # fmt: skip
    assert all("is a key of older files" in line for line in found)


def test_the_default_file_of_the_last_version_is_explained_whole(tmp_path):
    path = tmp_path / "params.yaml"
    path.write_text(
        "datasets: {a: {group_by: field}}\nbackbones: {mobilenet: {input_size_px: 8}}\n"
        "recipes:\n  frozen: {one: {augment: &up {flip: true}}}\n  fine_tune: {two: {augment: *up}}\n"
    )
    with pytest.raises(ConfigErrors) as caught:
        read_experiment(path)
    text = str(caught.value)
    assert len(caught.value.errors) == 4
    for word in (
        "line 5: alias *up",
        "backbones: is a section",
        "recipes: is a section",
        "'a' is unknown; datasets.fr",
    ):
        assert word in text


@pytest.mark.parametrize("section", ["runs", "compare", "datasets.frames", "compare.datasets"])
def test_empty_sections_that_dvc_cannot_read(tmp_path, section):
    outer, _, inner = section.partition(".")
    value = {inner: None} if inner else None
    path = tmp_path / "params.yaml"
    YAML(typ="safe").dump({outer: value}, path)
    with pytest.raises(ConfigError, match=f"{section}: is empty, which DVC cannot read; take the line away"):
        read_experiment(path)


def test_a_wrong_dataset_is_told_once(tmp_path):
    pictures = {"votes": {**PICTURES["votes"], "size_px": 1}}
    runs = {"one": {"dataset": "votes", "network": "vgg16", "answer": "tree"}}
    (line,) = lines_of(tmp_path, datasets={"pictures": pictures}, runs=runs)
    assert "size_px" in line


def test_all_values_of_a_place_are_told(tmp_path):
    wrong = {"learning_rate": 1e300, "epochs": 10**30, "dropout": 2.0, "batch_size": 0}
    assert len(lines_of(tmp_path, train=wrong)) == 4
    run = {"dataset": "toy", "network": "mobilenet", "lerning_rate": 1, **wrong}
    assert len(lines_of(tmp_path, runs={"one": run})) == 5


def test_an_origin_that_is_gone_is_no_reference(tmp_path):
    origin = {"study": "s", "trial": 0, "run": "gone"}
    experiment = read(tmp_path, runs={"t": {"dataset": "toy", "network": "mobilenet", "origin": origin}})
    assert plan_stages(experiment, Code())["evaluate"]["runs"]["t"]["reference"] is None
    origin["trial"] = -1
    (line,) = lines_of(tmp_path, runs={"t": {"dataset": "toy", "network": "mobilenet", "origin": origin}})
    assert "trial -1 is below 0" in line


def test_old_datasets_section(tmp_path):
    path = tmp_path / "params.yaml"
    YAML(typ="safe").dump({"datasets": {"sdss_rgb": {"group_by": "field"}}}, path)
    with pytest.raises(ConfigError, match=r"'sdss_rgb' is unknown; datasets\.frames holds FITS frames"):
        read_experiment(path)


def test_aliases_are_refused(tmp_path):
    path = tmp_path / "params.yaml"
    path.write_text("train: &all {epochs: 3}\nnetworks:\n  mobilenet: *all\n")
    with pytest.raises(ConfigError, match=r"params.yaml, line 3: alias \*all shares a value"):
        read_experiment(path)


def test_two_runs_of_one_name(tmp_path):
    path = tmp_path / "params.yaml"
    path.write_text("runs:\n  one: {dataset: a, network: vgg16}\n  one: {dataset: b, network: vgg16}\n")
    with pytest.raises(ConfigError, match=r"params.yaml, line 3: 'one' stands there twice"):
        read_experiment(path)


def test_reading_imports_nothing_heavy():
    heavy = (
        "keras",
        "tensorflow",
        "jax",
        "mlflow",
        "optuna",
        "pandas",
        "cv2",
        "astropy",
        "sklearn",
        "matplotlib",
        "dvc",
    )
    code = (
        "import sys; from deepsky.experiment.plan import plan_stages; from deepsky.experiment.fingerprint import Code\n"
        "from deepsky.experiment.experiment import read_experiment\nplan_stages(read_experiment(), Code())\n"
        f"print([name for name in {heavy} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=PARAMS.parent, check=True)
    assert done.stdout.strip() == "[]"
