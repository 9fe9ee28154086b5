"""deepsky paper: the experiments of the studies, their data, and the report's page beside what they printed."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest

from deepsky.commands import paper, small
from deepsky.config import read_yaml
from deepsky.errors import ConfigError, DataError
from deepsky.evaluation.album import Album
from deepsky.evaluation.paired import compare
from deepsky.experiment import edit
from deepsky.experiment.experiment import read_experiment
from deepsky.formats.galaxy10 import CLASSES
from deepsky.networks.backbone import build_base
from deepsky.networks.heads import build_head, softmax_answer
from deepsky.networks.registry import find_backbone
from deepsky.papers.paper import PAPERS, read_paper
from deepsky.report.paper import read_study
from deepsky.report.results import Result, Results
from tests.conftest import ROOT
from tests.galaxy_zoo_files import write_challenge
from tests.workspace import make_workspace

N_RUNS = {"star-galaxy-quasar": 44, "networks": 9, "fractions": 7, "transfer": 2, "galaxy10": 3}


@pytest.fixture
def project(tmp_path, monkeypatch):
    """The project's own params.yaml in a folder of its own."""
    shutil.copyfile(ROOT / "params.yaml", tmp_path / "params.yaml")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def add_dataset(name, **entry):
    document = edit.load()
    edit.set_entry(document, ("datasets", "pictures", name), entry)
    edit.save(document)


@pytest.mark.parametrize("name", PAPERS)
def test_a_study_is_a_whole_experiment(project, name):
    paper.run(name, None)
    experiment, study = read_experiment(), read_paper(name)
    assert experiment.paper == name
    assert len(experiment.runs) == N_RUNS[name]
    absent = {"warm_up_mnist", "warm_up_cifar10"}  # there are no simulated digits
    for run in (*study.printed, *study.printed_f1, *(run for one in study.questions for run in one.runs)):
        assert run in experiment.runs or run in absent
    assert all(set(of_run) == set(CLASSES) for of_run in study.printed_f1.values())
    written = (project / "params.yaml").read_bytes()
    paper.run(name, None)
    assert (project / "params.yaml").read_bytes() == written


def test_the_next_study_replaces_the_last_and_leaves_my_own_data(project):
    add_dataset("zoo", format="galaxy_zoo1", source="data/external/zoo", size_px=64)
    paper.run("star-galaxy-quasar", None)
    paper.run("galaxy10", None)
    experiment = read_experiment()
    assert set(experiment.pictures) == {"zoo", "galaxy10"}
    assert set(experiment.runs) == {"model_1", "model_2", "model_3"}
    assert (not experiment.frames, experiment.split.test_fraction) == (True, 0.2)


def test_n_is_how_much_is_simulated(project):
    paper.run("fractions", 200)
    experiment = read_experiment()
    assert experiment.simulate.n_galaxy_zoo == 200
    assert {name: one.limit for name, one in experiment.pictures.items()} == {
        "whole_100": None, "cropped_70": None, "half_100": 100,
    }  # fmt: skip
    paper.run("star-galaxy-quasar", 780)
    sky = read_experiment().catalogue
    assert sky.n_fields * sky.n_per_class_per_field * 3 == 780
    with pytest.raises(ConfigError, match=r"^N 100: simulate: n_galaxy10 must lie between 120 and"):
        paper.run("galaxy10", 100)


def test_data_of_my_own_are_taken(project, capsys):
    classes = ["round", "in-between", "cigar", "edge-on", "spiral"]
    source = write_challenge(project / "zoo", range(100001, 100011), classes * 2)
    add_dataset("zoo", format="galaxy_zoo_challenge", source=str(source), size_px=64)
    paper.run("fractions", 8)
    entries = read_yaml()["datasets"]["pictures"]
    assert {name: (one["source"], one.get("limit")) for name, one in entries.items() if name != "zoo"} == {
        "whole_100": (str(source), 8), "cropped_70": (str(source), 8), "half_100": (str(source), 4),
    }  # fmt: skip
    assert "simulated" not in capsys.readouterr().out.split("@@")[-1]
    before = (project / "params.yaml").read_bytes()
    with pytest.raises(ConfigError, match=rf"^N 11: is more than the 10 objects of {source}; lower it"):
        paper.run("fractions", 11)
    write_challenge(project / "zoo", range(100001, 100011), classes[:4] * 2 + classes[:2])
    with pytest.raises(DataError, match=r"zoo: holds no 'spiral', which the study tells apart"):
        paper.run("transfer", None)
    assert (project / "params.yaml").read_bytes() == before


def test_a_dataset_of_mine_is_not_written_over(project):
    mine = {"format": "galaxy_zoo1", "source": "data/external/zoo1", "size_px": 64}
    add_dataset("zoo1", **mine)
    paper.run("galaxy10", None)
    add_dataset("galaxy_zoo_classes", **mine)
    with pytest.raises(
        ConfigError, match=r"galaxy_zoo_classes: is a dataset of yours, and one of the study's; deepsky"
    ):
        paper.run("transfer", None)
    paper.run("star-galaxy-quasar", None)
    entries = read_yaml()["datasets"]["pictures"]
    assert (entries["zoo1"], entries["galaxy_zoo_classes"]) == (mine, mine)


def test_what_a_study_asks_of_the_archive_goes_with_it(project):
    before = read_experiment().archive
    paper.run("star-galaxy-quasar", None)
    assert read_experiment().archive.query_release == "dr9"
    paper.run("galaxy10", None)
    assert read_experiment().archive == before


@pytest.mark.parametrize("name", PAPERS)
def test_a_miniature_of_a_study_has_runs(project, name):
    paper.run(name, None)
    small.run()
    assert read_experiment().runs


def test_a_real_sky_must_have_the_classes(project):
    document = edit.load()
    edit.set_entry(document, ("catalogue", "survey"), "sdss")
    edit.save(document)
    with pytest.raises(ConfigError, match=r"N 300: is not for survey: sdss, .* --objects-per-class 100$"):
        paper.run("star-galaxy-quasar", 300)
    edit.set_entry(document, ("catalogue", "survey"), "list")
    edit.save(document)
    with pytest.raises(ConfigError, match=r"survey list: names no fields, whose frames the study takes; set it to"):
        paper.run("star-galaxy-quasar", None)
    edit.set_entry(document, ("catalogue", "survey"), "sdss")
    edit.save(document)
    (project / "data/query").mkdir(parents=True)
    (project / "data/query/catalogue.csv").write_text("id,class\n1,GALAXY\n2,STAR\n")
    with pytest.raises(DataError, match=r"holds no QSO, which the study tells apart; .* --objects-per-class 25000$"):
        paper.run("star-galaxy-quasar", None)


def result(name, accuracy, low, high, val_loss=(1.0,), n_test_groups=10, dataset="d"):
    summary = {"target": "class", "tested_on": "test", "val_accuracy": 0.8, "dataset": dataset}
    summary |= {"test_f1_macro": 0.5, "test_f1_macro_low": 0.4, "test_f1_macro_high": 0.55}
    summary |= {"n_test_groups": n_test_groups}
    summary |= {"test_accuracy": accuracy, "test_accuracy_low": low, "test_accuracy_high": high}
    history = {"val_loss": list(val_loss), "epoch": list(range(1, len(val_loss) + 1))}
    details = {"history": history, "splits": {"test": {"per_class": {"a": {"f1": 0.4}}}}}
    return Result(name, summary, details, Album([], {}))


def answers(*right_of_groups):
    """Return how many of the ten objects of each group were answered rightly, as stage evaluate writes it."""
    groups = [f"g{number}" for number in range(len(right_of_groups))]
    return pd.DataFrame({"group": groups, "n": 10, "accuracy": np.array(right_of_groups) / 10})


def better(*runs):
    return {"asks": " or ".join(runs), "kind": "better", "runs": list(runs)}


def said_of(questions, runs, compared=None):
    study = {"title": "t", "chosen": [], "printed": {}, "printed_f1": {}, "questions": questions}
    return [one.answer for one in read_study(study, Results(runs, {}, compared or {})).answered]


def test_what_was_printed_stands_beside_what_was_measured():
    printed = {"a": {"test_accuracy": 0.61, "val_accuracy": 0.7, "test_f1_macro": 0.5}, "d": {"test_accuracy": 0.9}}
    study = read_study(
        {"title": "t", "chosen": [], "printed": printed, "printed_f1": {"a": {"a": 0.3, "z": 0.1}}, "questions": []},
        Results([result("a", 0.5, 0.4, 0.6)], {}, {}),
    )
    assert [(one.figure, one.printed, one.measured, one.interval, one.holds_printed) for one in study.compared] == [
        ("test accuracy", 0.61, 0.5, (0.4, 0.6), False), ("validation accuracy", 0.7, 0.8, None, False),
        ("test macro F1", 0.5, 0.5, (0.4, 0.55), True), ("F1 of a", 0.3, 0.4, None, False),
    ]  # fmt: skip


def test_runs_of_one_dataset_are_told_apart_by_their_answers_to_the_same_objects():
    runs = [result("a", 0.5, 0.4, 0.6), result("b", 0.6, 0.5, 0.7), result("c", 0.51, 0.4, 0.6)]
    luck = [7 if number % 2 else 3 for number in range(40)]  # some fields are easier, for every network
    of_runs = {"a": answers(*luck), "b": answers(*(one + 1 for one in luck)), "c": answers(5, *luck[1:])}
    compared = compare(of_runs, "accuracy")
    questions = [better("b", "a"), better("a", "b"), better("c", "a"), better("a", "d")]
    assert said_of(questions, runs, {"d": compared}) == [
        "Yes: 0.600 (0.500 – 0.700) against 0.500 (0.400 – 0.600); better with a probability of above 99.9 %.",
        "No: 0.500 (0.400 – 0.600) against 0.600 (0.500 – 0.700); better with a probability of below 0.1 %.",
        "It cannot be told: 0.510 (0.400 – 0.600) against 0.500 (0.400 – 0.600); they differ in 1 of 40 groups.",
    ]
    noise = [(-1) ** (number // 2) for number in range(40)]
    compared = compare({"a": of_runs["a"], "b": answers(*np.add(luck, noise))}, "accuracy")
    assert said_of([better("b", "a")], runs, {"d": compared})[0].startswith("Not told apart: 0.600")


def test_runs_of_different_datasets_are_told_apart_by_the_interval_of_the_difference():
    runs = [
        result("a", 0.5, 0.4, 0.6), result("b", 0.65, 0.55, 0.75, dataset="e"), result("c", 0.6, 0.5, 0.7, dataset="f"),
        result("few", 0.9, 0.85, 0.95, n_test_groups=9, dataset="g"),
    ]  # fmt: skip
    questions = [better("b", "a"), better("a", "b"), better("c", "a"), better("few", "a")]
    assert said_of(questions, runs) == [  # the intervals of a and b overlap
        "Yes: 0.650 (0.550 – 0.750) against 0.500 (0.400 – 0.600); the difference is +0.150 (+0.009 to +0.291).",
        "No: 0.500 (0.400 – 0.600) against 0.650 (0.550 – 0.750); the difference is -0.150 (-0.291 to -0.009).",
        "Not told apart: 0.600 (0.500 – 0.700) against 0.500 (0.400 – 0.600); "
        "the difference is +0.100 (-0.041 to +0.241).",
        "It cannot be told: 0.900 (0.850 – 0.950, unreliable, from 9 groups) against 0.500 (0.400 – 0.600); "
        "the difference is +0.400 (+0.288 to +0.512), as unreliable.",
    ]


def test_a_run_overfits_whose_validation_loss_rises_again():
    runs = [result("a", 0.5, 0.4, 0.6, (0.9, 0.31, 0.7)), result("b", 0.8, 0.7, 0.9, (0.9, 0.3, 0.31))]
    assert said_of([{"asks": "?", "kind": "overfits", "runs": [name]} for name in "ab"], runs) == [
        "Yes: the validation loss was lowest in epoch 2, 0.310, and 0.700 in epoch 3, the last.",
        "No: the validation loss was lowest in epoch 2, 0.300, and 0.310 in epoch 3, the last.",
    ]


def test_study_a_trains_a_head_of_its_size(project):
    paper.run("star-galaxy-quasar", None)
    recipe = read_experiment().runs["sdss_jpg_mobilenet_50"].recipe
    assert recipe.of_head
    base = build_base(find_backbone(recipe.network), 224)
    head = build_head(base.output_shape[-1], softmax_answer(3), recipe.hidden_units, recipe.activation)
    assert (base.count_params() + head.count_params(), head.count_params()) == (5_854_403, 2_625_539)


def test_the_studies_networks_end_to_end(tmp_path):
    """Study C's approaches 1 and 3 and study E's model 1, on little data, for an epoch."""
    workspace = make_workspace(tmp_path)
    workspace.run("deepsky", "paper", "fractions", "--n", "40")
    other = read_yaml(workspace.root / "params.yaml")
    workspace.run("deepsky", "paper", "galaxy10", "--n", "120")
    own = read_yaml(workspace.root / "params.yaml")
    datasets = {name: other["datasets"]["pictures"][name] for name in ("whole_100", "cropped_70")}
    little = {"input_size_px": 48, "epochs": 1}
    runs = {name: {**other["train"], **other["runs"][name], **little} for name in ("approach_1", "approach_3")}
    runs["model_1"] = own["runs"]["model_1"] | little
    workspace.edit_params(
        datasets={"pictures": own["datasets"]["pictures"] | datasets},
        runs=json.loads(json.dumps(runs)),  # without the aliases that YAML makes of what they share
        simulate__n_galaxy_zoo=40,
    )
    workspace.run("deepsky", "repro", "--jobs", "2")
    trained = workspace.root / "models/trained"
    assert {path.parent.name for path in trained.glob("*/*/run.json")} == {"approach_1", "approach_3", "model_1"}
    page = (workspace.root / "reports/index.html").read_text()
    assert "Beside the study: Galaxy10 DECaLS (2024)" in page
    assert page.count("F1 of ") == len(CLASSES)
