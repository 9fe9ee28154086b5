"""dvc.yaml against the code: every stage lists exactly the source files that it imports."""

import ast
from pathlib import Path

import grimp
import pytest
from ruamel.yaml import YAML

ROOT = Path(__file__).resolve().parents[1]
STAGES = YAML(typ="safe").load(ROOT / "dvc.yaml")["stages"]
GRAPH = grimp.build_graph("deepsky")
SAME_VERB = {"split_collection", "train_tuned", "train_tuned_scratch"}  # as another stage, with other parameters


def source_file(module: str) -> Path:
    path = ROOT / "src" / Path(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def has_code(path: Path) -> bool:
    body = ast.parse(path.read_text()).body
    return any(not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)) for node in body)


def closure(module: str) -> set[str]:
    """Source files that importing the module runs: its imports, and the packages that they stand in."""
    found: set[str] = set()
    waiting = {module}
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        found.add(name)
        waiting |= GRAPH.find_modules_directly_imported_by(name)
        if "." in name:
            waiting.add(name.rpartition(".")[0])
    files = {source_file(name) for name in found}
    code = {path for path in files if has_code(path)}
    templates = {path for file in code for path in (file.parent / "templates").glob("*")}
    return {str(path.relative_to(ROOT)) for path in code | templates}


def module_of(stage):
    """The stage's module: its verb's name. Some stages are others with other parameters."""
    program, verb, *_ = STAGES[stage].get("do", STAGES[stage])["cmd"].split()
    assert program == "deepsky"
    return verb.replace("-", "_")


def test_every_stage_is_a_module_and_a_verb():
    from deepsky.cli import cli

    modules = {path.stem for path in (ROOT / "src/deepsky/stages").glob("*.py")} - {"__init__"}
    assert {module_of(stage) for stage in STAGES} == modules
    assert {stage for stage in STAGES if module_of(stage) != stage} == SAME_VERB
    assert {module.replace("_", "-") for module in modules} <= set(cli.commands)


@pytest.mark.parametrize("stage", STAGES)
def test_stage_depends_on_its_import_closure(stage):
    definition = STAGES[stage].get("do", STAGES[stage])
    listed = {path for path in definition["deps"] if path.startswith("src/")}
    expected = closure(f"deepsky.stages.{module_of(stage)}")
    block = "\n".join(f"      - {path}" for path in sorted(expected))
    assert listed == expected, f"deps of {stage} in dvc.yaml should list these source files:\n{block}"
