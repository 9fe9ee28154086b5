import difflib
import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path

import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.trial import TrialState
from ruamel.yaml import YAML

from deepsky.cli import cli
from deepsky.commands import adopt as command
from deepsky.commands import repro
from deepsky.config import read_section, read_yaml
from deepsky.errors import ConfigError, StudyError
from deepsky.stages.train import TunedHead
from deepsky.stages.train_scratch import TunedScratch
from deepsky.tracking.origin import find_trial_run
from deepsky.tracking.store import prepare
from deepsky.tracking.studies import TrialRecord, open_study_run
from deepsky.training.fit import TrainParams
from deepsky.tuning.adopt import adopt, diff, read_adopted
from deepsky.tuning.database import open_database, quiet
from deepsky.tuning.params import TuneParams
from deepsky.tuning.space import suggest
from deepsky.tuning.study import meaning_of, open_study
from tests.conftest import ROOT
from tests.trained_folders import make_project
from tests.tuning_project import DATASET
from tests.tuning_project import make_project as make_data

REAL = (ROOT / "params.yaml").read_text()
KEY = "sdss_cutouts-mobilenet"
WITHOUT = REAL[: REAL.index("\ntuned:")] + "\ntuned:\n  heads: {}\n  scratch: {}\n\ntracking: {experiment: deepsky}\n"
EMPTY = "tuned:  # mine\n  heads: {}   # none yet\n  scratch: {}\n\n# the end\ntracking:\n  experiment: sky\n"


def head(**changes):
    """An entry as deepsky tune adopt makes it: section train of the real params.yaml with other values."""
    train = read_yaml("train", ROOT / "params.yaml") | {"hidden_units": [512, 64], "learning_rate": 3.4e-05} | changes
    return {"dataset": "sdss_cutouts", "network": "mobilenet", "study": KEY, "trial": 57, "train": train}


def scratch():
    fit = read_yaml("scratch.cnn_small", ROOT / "params.yaml")
    return {"dataset": "sdss_jpg", "network": "cnn_small", "study": "yes", "trial": 0, "scratch": fit}


def parsed(text):
    return YAML(typ="safe").load(text)


def changed_lines(before, after):
    """Numbers, in ``before``, of the lines that are replaced or that others are put after."""
    steps = difflib.SequenceMatcher(None, before.splitlines(), after.splitlines(), autojunk=False).get_opcodes()
    return {line for kind, first, last, _, _ in steps if kind != "equal" for line in range(first, max(last, first + 1))}


@pytest.mark.parametrize(
    ("part", "key", "entry"), [("heads", KEY, head()), ("scratch", "sdss_jpg-cnn_small", scratch())]
)
def test_only_lines_of_section_tuned_change_in_the_real_file(part, key, entry):
    after = adopt(REAL, part, key, entry)
    lines = REAL.splitlines()
    first = next(i for i, line in enumerate(lines) if line.startswith("tuned:"))
    last = next(i for i, line in enumerate(lines) if i > first and line and not line.startswith(" "))
    assert changed_lines(REAL, after) <= set(range(first + 1, last))
    assert parsed(after)["tuned"][part][key] == entry
    assert parsed(after) | {"tuned": None} == parsed(REAL) | {"tuned": None}


def test_the_stage_reads_what_was_written(tmp_path):
    path = tmp_path / "params.yaml"
    path.write_text(adopt(adopt(WITHOUT, "heads", KEY, head()), "scratch", "sdss_jpg-cnn_small", scratch()))
    entry = read_section(f"tuned.heads.{KEY}", TunedHead, path)
    assert (entry.train.hidden_units, entry.train.learning_rate, entry.trial) == ((512, 64), 3.4e-05, 57)
    assert read_section("tuned.scratch.sdss_jpg-cnn_small", TunedScratch, path).study == "yes"
    assert [(one.key, one.label) for one in read_adopted(path)] == [
        (KEY, "mobilenet_tuned"),
        ("sdss_jpg-cnn_small", "cnn_small_tuned"),
    ]


def test_adopting_the_same_again_changes_nothing():
    once = adopt(REAL, "heads", KEY, head())
    assert adopt(once, "heads", KEY, head()) == once


def test_another_trial_replaces_the_entry_of_its_key_alone():
    entries = {"zoo-mobilenet": head(batch_size=16), KEY: head(), "a-vgg16": head(epochs=3)}
    text = EMPTY
    for key, entry in entries.items():
        text = adopt(text, "heads", key, entry)
    for key in entries:
        better = head(dropout=0.25, hidden_units=[]) | {"trial": 99}
        after = adopt(text, "heads", key, better)
        assert parsed(after)["tuned"]["heads"] == entries | {key: better}
        assert list(parsed(after)["tuned"]["heads"]) == list(entries)
        assert adopt(after, "heads", key, entries[key]) == text


def test_comments_stay_whereever_they_stand():
    text = adopt(EMPTY, "heads", KEY, head()).replace(f"    {KEY}:\n", f"    # chosen by hand\n    {KEY}:  # 57\n")
    text = text.replace("  scratch: {}", "    # between\n\n  scratch:   {} # below")
    text = adopt(adopt(text, "scratch", "zoo-cnn_small", scratch()), "heads", "zoo-vgg16", head())
    for comment in (
        "tuned:  # mine",
        "heads:   # none yet",
        "    # chosen by hand",
        "    # between",
        "# below",
        "# the end",
    ):
        assert comment in text
    assert set(parsed(text)["tuned"]["heads"]) == {KEY, "zoo-vgg16"}
    assert set(parsed(text)["tuned"]["scratch"]) == {"zoo-cnn_small"}


def test_a_section_at_the_end_of_a_file_without_a_last_newline():
    text = "tracking: {experiment: sky}\ntuned:\n    scratch: {}\n    heads: {}"
    after = adopt(text, "heads", KEY, head())
    assert parsed(adopt(after, "heads", "b-c", head()))["tuned"] == {
        "scratch": {},
        "heads": {KEY: head(), "b-c": head()},
    }
    assert after.startswith("tracking: {experiment: sky}\ntuned:\n    scratch: {}\n    heads:\n")


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_every_number_is_read_back_as_it_was_also_by_yaml_1_1(value):
    text = adopt(EMPTY, "heads", KEY, head(learning_rate=value))
    assert parsed(text)["tuned"]["heads"][KEY]["train"]["learning_rate"] == value
    old = YAML(typ="safe", pure=True)
    old.version = (1, 1)
    assert old.load(text)["tuned"]["heads"][KEY]["train"]["learning_rate"] == value


def test_the_diff_names_file_and_lines():
    text = diff(EMPTY, adopt(EMPTY, "heads", KEY, head()))
    assert text.startswith("--- params.yaml\n+++ params.yaml\n")
    assert "-  heads: {}   # none yet\n+  heads:   # none yet\n" in text
    assert "\n+        learning_rate: 3.4e-05\n" in text
    assert diff(EMPTY, EMPTY) == ""


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("tracking: {experiment: sky}\n", "'tuned' is missing; write tuned with heads: {}"),
        ("tuned: {scratch: {}}\n", "tuned: 'heads' is missing"),
        ("tuned: {heads: {}, scratch: {}}\n", "tuned.heads: is not an indented mapping"),
        ("tuned:\n  heads:\n  scratch: {}\n", "tuned.heads: is not an indented mapping"),
        ("tuned:\n  heads: {a-b: {trial: 1}}\n  scratch: {}\n", "tuned.heads: is not an indented mapping"),
    ],
)
def test_refuses_a_section_that_no_entry_fits_into(text, words):
    with pytest.raises(ConfigError, match=words):
        adopt(text, "heads", KEY, head())


@pytest.mark.parametrize(
    ("key", "change", "words"),
    [
        ("a-b", {}, f"tuned.heads.a-b: is about sdss_cutouts x mobilenet; name it {KEY}"),
        (
            "gone-mobilenet",
            {"dataset": "gone"},
            "gone-mobilenet: datasets has no 'gone'; put it back, or delete the entry",
        ),
        ("sdss_jpg-cnn_small", {"dataset": "sdss_jpg", "network": "cnn_small"}, "backbones has no 'cnn_small'"),
        (KEY, {"trial": "57"}, "trial: '57' is not of type int"),
        (KEY, {"study": None}, "study: None is not of type str"),
    ],
)
def test_an_entry_that_fits_nothing_is_named(tmp_path, key, change, words):
    path = tmp_path / "params.yaml"
    path.write_text(adopt(WITHOUT, "heads", key, head() | change))
    with pytest.raises(ConfigError, match=words):
        list(read_adopted(path))


def test_repro_names_a_wrong_entry_before_dvc_stumbles_over_it(params):
    params.write_text(adopt(WITHOUT, "heads", "a-b", head()))
    with pytest.raises(ConfigError, match=f"tuned.heads.a-b: is about sdss_cutouts x mobilenet; name it {KEY}"):
        repro.run(1)


def test_an_emptied_part_is_named(tmp_path):
    path = tmp_path / "params.yaml"
    path.write_text(WITHOUT.replace("  heads: {}", "  heads:"))
    with pytest.raises(ConfigError, match=r"tuned.heads: None is not a mapping; write \{\}"):
        list(read_adopted(path))


# ---- the command, on a study in SQLite ----


@pytest.fixture
def params(tmp_path, monkeypatch):
    """params.yaml of a project of its own, before anything is adopted."""
    make_project(tmp_path, monkeypatch)
    (tmp_path / "params.yaml").write_text(WITHOUT)
    return tmp_path / "params.yaml"


def make_study(name="night", network="mobilenet", values=(0.5, 0.75, 0.25, None), **changes):
    """A study with the given values of its trials, None for a failed one; returns the candidates."""
    tune, reference = read_section("tune", TuneParams), read_section("train", TrainParams)
    tune = replace(tune, pruner="none", **changes)
    candidates = []
    with quiet():
        study = open_study(name, tune, reference, meaning_of("sdss_cutouts", network, tune, reference, {}))
        for value in values:
            trial = study.ask()
            candidates.append(suggest(trial, tune, reference))
            study.tell(trial, value, state=None if value is not None else TrialState.FAIL)
    return candidates


def test_the_best_trial_is_written_and_shown(params, capsys):
    candidates = make_study()
    command.run("night", None, None)
    entry = read_section(f"tuned.heads.{KEY}", TunedHead)
    assert (entry.study, entry.trial, entry.train) == ("night", 1, candidates[1])
    assert [one.key for one in read_adopted()] == [KEY]
    printed = capsys.readouterr().out
    assert "study night, trial 1: f1_macro 0.75\n" in printed
    assert diff(WITHOUT, params.read_text()) in printed
    assert "make repro" in printed


def test_another_trial_by_its_number_and_then_the_same_again(params, capsys):
    candidates = make_study()
    command.run("night", None, None)
    command.run("night", 2, None)
    entry = read_section(f"tuned.heads.{KEY}", TunedHead)
    assert (entry.trial, entry.train) == (2, candidates[2])
    before, modified = params.read_bytes(), params.stat().st_mtime_ns
    capsys.readouterr()
    command.run("night", 2, None)
    assert (params.read_bytes(), params.stat().st_mtime_ns) == (before, modified)
    assert "has it already" in capsys.readouterr().out


def test_smaller_is_better_for_cross_entropy_and_the_first_objective_decides(params):
    make_study("loss", values=(0.5, 0.75, 0.25), objectives=("cross_entropy",))
    command.run("loss", None, None)
    assert read_section(f"tuned.heads.{KEY}", TunedHead).trial == 2
    make_study("two", values=([0.5, 10], [0.75, 9000], [0.25, 5]), objectives=("f1_macro", "parameters"))
    command.run("two", None, None)
    assert read_section(f"tuned.heads.{KEY}", TunedHead).trial == 1


def test_what_the_study_began_with_counts_more_than_params_yaml_now(params):
    candidates = make_study()
    text = params.read_text().replace("keep: best  ", "keep: last  ", 1)
    text = text.replace("  epochs: 10                   # at most", "  epochs: 77                   # at most")
    text = text.replace("sampler: tpe ", "sampler: grid ")
    assert text.count("epochs: 77") == text.count("keep: last  ") == text.count("sampler: grid") == 1
    params.write_text(text)
    command.run("night", None, None)
    assert read_section(f"tuned.heads.{KEY}", TunedHead).train == candidates[1]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("day", None, None), "study day: does not exist; it has night"),
        (("night", 9, None), "study night: has no trial 9; it has 4, counted from 0"),
        (("night", 3, None), r"study night, trial 3: is not complete \(fail\)"),
        (("night", None, "sqlite:///nowhere.db"), "nowhere.db: does not exist"),
    ],
)
def test_a_study_or_trial_that_is_not_there_is_named(params, arguments, words):
    make_study()
    with pytest.raises(StudyError, match=words):
        command.run(*arguments)
    assert params.read_text() == WITHOUT


def test_a_study_without_a_complete_trial_is_refused(params):
    make_study(values=(None, None))
    with pytest.raises(StudyError, match="study night: has no complete trial; go on with it"):
        command.run("night", None, None)


@pytest.mark.parametrize(
    ("gone", "words"),
    [
        ("  sdss_cutouts: {group_by: field}\n", "params.yaml: datasets: has no 'sdss_cutouts'"),
        ("  mobilenet: {input_size_px: 128}\n", "params.yaml: backbones: has no 'mobilenet'"),
        ("  heads: {}\n", "params.yaml: tuned: 'heads' is missing"),
    ],
)
def test_params_yaml_that_has_no_place_for_the_study_any_more(params, gone, words):
    make_study()
    assert WITHOUT.count(gone) == 1
    params.write_text(WITHOUT.replace(gone, ""))
    with pytest.raises(ConfigError, match=words):
        command.run("night", None, None)
    assert params.read_text() == WITHOUT.replace(gone, "")


def test_a_study_of_somebody_else_is_refused(params):
    make_study()
    with quiet():
        optuna.create_study(study_name="alien", storage=open_database("sqlite:///tuning.db"))
    with pytest.raises(StudyError, match="study alien: has no settings: deepsky did not make it"):
        command.run("alien", None, None)


# ---- the stages train what was adopted ----


@pytest.fixture
def small_params(params):
    """The same with files to learn from, known to dvc.lock, and dvc.yaml as it is."""
    make_data(params.parent, n_rows=60, n_features=1024)
    text = WITHOUT.replace("  sdss_cutouts: {group_by: field}", f"  {DATASET}: {{group_by: group}}")
    params.write_text(text.replace("mobilenet: {input_size_px: 128}", "mobilenet: {input_size_px: 32}"))
    shutil.copy(ROOT / "dvc.yaml", params.parent)
    outs = "    - {path: models/pretrained/mobilenet, hash: md5, md5: 0123456789abcdef0123456789abcdef.dir}\n"
    with (params.parent / "dvc.lock").open("a") as lock:
        lock.write(f"  weights:\n    cmd: x\n    outs:\n{outs}")
    return params


def stored_run(name):
    client, experiment = prepare("deepsky")
    found = client.search_runs([experiment], f"attributes.run_name = '{name}'")
    assert len(found) == 1
    return found[0].data


def test_a_head_is_trained_as_adopted_and_its_run_leads_to_the_trial(small_params, monkeypatch):
    fit = read_yaml("train") | {"hidden_units": [8], "batch_norm": True, "learning_rate": 2e-3, "epochs": 1}
    check_stage("heads", "mobilenet", {"train": fit}, monkeypatch)
    tags = stored_run(f"{DATASET}-mobilenet_tuned").tags
    features = Path(f"data/features/{DATASET}/mobilenet.npy")
    assert tags[f"deepsky.data.{features}"] == hashlib.md5(features.read_bytes()).hexdigest()


def test_a_network_from_scratch_is_trained_as_adopted_and_its_run_leads_to_the_trial(small_params, monkeypatch):
    fit = read_yaml("scratch.cnn_small") | {"input_size_px": 8, "optimizer": "sgd", "epochs": 1}
    check_stage("scratch", "cnn_small", {"scratch": fit}, monkeypatch)


def check_stage(part, network, fit, monkeypatch):
    """Train through the command line as DVC does, and look at the files and at the run."""
    study = open_study_run("deepsky-tuning", "night", {}, {})
    study.log_trials([TrialRecord(3, "COMPLETE", 0, 1000, {}, [], {"f1_macro": 0.5}, "")])
    key, label, params = f"{DATASET}-{network}", f"{network}_tuned", Path("params.yaml")
    entry = {"dataset": DATASET, "network": network, "study": "night", "trial": 3, **fit}
    params.write_text(adopt(params.read_text(), part, key, entry))
    stage, command = tuned_stage(part, network)
    if part == "heads":
        cli.main(["weights", "mobilenet", "--out", "models/pretrained/mobilenet"], standalone_mode=False)
    monkeypatch.setenv("DVC_STAGE", f"{stage}@{key}")
    cli.main(command, standalone_mode=False)
    facts = json.loads(Path(f"models/trained/{DATASET}/{label}/run.json").read_text())
    assert (facts["network"], facts["params"] | fit) == (label, facts["params"])
    assert facts["params"]["tuned"] == {"network": network, "study": "night", "trial": 3}
    tags = stored_run(f"{DATASET}-{label}").tags
    assert (tags["deepsky.network"], tags["deepsky.stage"]) == (label, f"{stage}@{key}")
    assert (tags["deepsky.study"], tags["deepsky.trial"]) == ("night", "3")
    assert tags["deepsky.trial_run"] == find_trial_run("deepsky-tuning", "night", 3)


def tuned_stage(part, network):
    """The stage of dvc.yaml that trains the entries of a part, and its arguments."""
    stages = YAML(typ="safe").load(Path("dvc.yaml"))["stages"]
    stage = next(name for name, one in stages.items() if one.get("foreach") == f"${{tuned.{part}}}")
    command = stages[stage]["do"]["cmd"].replace("${item.dataset}", DATASET).replace("${item.network}", network)
    return stage, command.split()[1:]


def test_an_entry_that_is_not_there_is_one_line(small_params):
    _, command = tuned_stage("scratch", "cnn_small")
    with pytest.raises(ConfigError, match=rf"params.yaml: tuned.scratch.{DATASET}-cnn_small: .* is missing"):
        cli.main(command, standalone_mode=False)
