"""dvc.yaml against the code: verbs, modules and the plan."""

import re
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from deepsky.experiment.plan import MANY

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "dvc.yaml").read_text()
STAGES = YAML(typ="safe").load(TEXT)["stages"]
# DVC has no conditional deps, so that one verb serves several stages.
SAME_VERB = {"split_frames": "split", "features_frames": "features", "train_run": "train"}


def body(stage):
    return STAGES[stage].get("do", STAGES[stage])


def verb_of(stage):
    program, verb, *_ = body(stage)["cmd"].split()
    assert program == "deepsky"
    return verb


def test_every_stage_is_a_module_and_a_verb():
    from deepsky.cli import cli

    modules = {path.stem for path in (ROOT / "src/deepsky/stages").glob("*.py")} - {"__init__"}
    assert {verb_of(stage) for stage in STAGES} == modules
    assert {stage: verb_of(stage) for stage in STAGES if verb_of(stage) != stage} == SAME_VERB
    assert modules <= set(cli.commands)


@pytest.mark.parametrize("stage", [stage for stage in STAGES if stage != "plan"])
def test_stage_depends_on_its_own_entry_of_the_plan(stage):
    (params,) = body(stage)["params"]
    (key,) = params["versions.json"]
    verb = verb_of(stage)
    assert re.fullmatch(verb + (r"\..+" if verb in MANY else ""), key)
    assert not [dep for dep in body(stage).get("deps", ()) if dep.startswith("src")]


def test_shell_commands_hold_names_only():
    """What a person may write freely, such as a path, reaches stages by the plan, never by the shell."""
    for stage in STAGES:
        used = set(re.findall(r"\$\{([\w.]+)\}", body(stage)["cmd"]))
        assert used <= {"key", "item.dataset", "item.network", "item.frames", "item.kind"}, stage


def test_every_stage_says_what_it_is():
    assert all(body(stage).get("desc") for stage in STAGES)


def test_dvc_yaml_reads_like_a_table_of_contents():
    assert TEXT.count("\n") <= 170
    assert (ROOT / "params.yaml").read_text().count("\n") <= 230
