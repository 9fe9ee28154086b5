"""What reruns after which edit, read from the plan: each stage depends on its own hash there."""

import ast
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from deepsky.commands.planned import planned_runs
from deepsky.experiment import fingerprint
from deepsky.experiment.experiment import read_experiment
from deepsky.experiment.fingerprint import NO_RESULT, Code, changes_no_result
from deepsky.experiment.plan import MANY, plan_stages, read_plan, versions_of, write_plan

ROOT = Path(__file__).resolve().parents[1]
PARAMS = ROOT / "params.yaml"
SOURCE = ROOT / "src" / "deepsky"
EXPERIMENT = read_experiment(PARAMS)
RUNS = {f"train.{name}" for name in EXPERIMENT.runs}


def flat(versions) -> dict[str, str]:
    """Hash of every stage and item by its address."""
    pairs = {stage: one for stage, one in versions.items() if stage not in MANY}
    return pairs | {f"{stage}.{item}": one for stage in MANY for item, one in versions[stage].items()}


OWN = Code(SOURCE)  # it keeps what it has read
BEFORE = flat(versions_of(plan_stages(EXPERIMENT, OWN)))


def changed(after) -> set[str]:
    return {key for key in BEFORE | after if BEFORE.get(key) != after.get(key)}


@pytest.fixture
def copy(tmp_path) -> Path:
    """A copy of the source to edit."""
    return Path(shutil.copytree(SOURCE, tmp_path / "deepsky", ignore=shutil.ignore_patterns("__pycache__")))


def after_edit(copy: Path) -> set[str]:
    return changed(flat(versions_of(plan_stages(EXPERIMENT, Code(copy)))))


def appended(text: str) -> Callable[[Path], None]:
    return lambda path: path.write_text(path.read_text() + text)


CODE = "\n\ndef _more() -> int:\n    return 1\n"
OF_NETWORK = {
    "mobilenet": {key for key in RUNS if key.endswith("-mobilenet")},
    "cnn_small": {key for key in RUNS if key.endswith("-cnn_small")},
}
# Features of networks of which heads learn.
OF_HEADS = {f"features.{run.recipe.dataset}" for run in EXPERIMENT.runs.values() if run.recipe.of_head}
CUTOUTS = {f"features.{name}" for name in ("sdss_frames", "sdss_rgb", "sdss_cutouts", "sdss_jpg", "stsci_jpg")}


@pytest.mark.parametrize(
    ("file", "reruns"),
    [
        ("networks/alexnet.py", set()),  # no default run uses it
        ("archives/http.py", set()),
        ("archives/downloader.py", set()),
        ("tracking/store.py", set()),
        ("commands/repro.py", set()),
        ("config.py", set()),
        ("networks/registry.py", set()),
        ("report/page.py", {"report"}),
        ("networks/mobilenet.py", {"weights"} | CUTOUTS | OF_NETWORK["mobilenet"]),
        ("networks/cnn_small.py", OF_NETWORK["cnn_small"]),
        ("archives/checks.py", {"fetch"}),
        ("archives/addresses.py", {"fetch"}),
        ("training/fit.py", RUNS),
        ("training/record.py", RUNS),
        ("training/view_features.py", {key for key in BEFORE if key.startswith("features.")} | RUNS),
        ("formats/galaxy10.py", {"pack.galaxy10"}),
        ("simulation/votes.py", {"simulate"}),
        ("evaluation/classes.py", {"evaluate"}),
    ],
)
def test_edit_of_code_reruns_what_runs_it(copy, file, reruns):
    appended(CODE)(copy / file)
    found = after_edit(copy)
    if file == "training/view_features.py":  # of networks of which nothing is cached nothing is computed
        reruns = reruns - {"features.galaxy_zoo", "features.galaxy_zoo1", "features.galaxy10"}
    assert found == reruns


def test_comments_and_docstrings_rerun_nothing(copy):
    for path in copy.rglob("*.py"):
        tree = ast.parse(path.read_text())
        has_docstring = ast.get_docstring(tree) is not None
        text = path.read_text()
        path.write_text(f'"""Other words."""\n{text}' if not has_docstring else f"{text}\n# A remark.\n")
    assert after_edit(copy) == set()


def test_new_network_reruns_nothing(copy):
    (copy / "networks" / "tiny.py").write_text('"""Tiny."""\n' + CODE)
    registry = copy / "networks" / "registry.py"
    registry.write_text(
        registry.read_text().replace("SCRATCH = {", 'SCRATCH = {\n    "tiny": "deepsky.networks.tiny:x",')
    )
    assert after_edit(copy) == set()


def test_another_network_of_a_name_reruns_its_runs(copy):
    code = Code(copy)
    assert code.fingerprint("deepsky.networks.resnet:RESNET50") != code.fingerprint("deepsky.networks.resnet:RESNET101")


def test_fields_that_newer_pythons_add_do_not_count():
    tree = ast.parse("def f(x): return x")
    older = fingerprint._dumped(tree)
    tree.body[0].type_params = []
    assert fingerprint._dumped(tree) == older
    tree.body[0].name = "g"
    assert fingerprint._dumped(tree) != older


def test_style_sheet_reruns_the_report(copy):
    sheet = copy / "report" / "templates" / "page.css"
    appended("\nbody { margin: 0 }\n")(sheet)
    assert after_edit(copy) == {"report"}


def edited(tmp_path: Path, *changes: tuple[str, object]) -> set[str]:
    """What reruns after changes of params.yaml, given by dotted key."""
    yaml = YAML(typ="safe")
    params = yaml.load(PARAMS)
    for dotted, value in changes:
        *parents, key = dotted.split(".")
        section = params
        for parent in parents:
            section = section[parent]
        section[key] = value
    yaml.dump(params, tmp_path / "params.yaml")
    stages = plan_stages(read_experiment(tmp_path / "params.yaml"), OWN)
    return changed(flat(versions_of(stages)))


def test_learning_rate_of_train_reruns_the_runs_that_inherit_it(tmp_path):
    assert edited(tmp_path, ("train.learning_rate", 2e-3)) == RUNS | {"evaluate"}
    assert edited(tmp_path, ("train.activation", "gelu")) == {"evaluate"} | {
        f"train.{name}" for name, run in EXPERIMENT.runs.items() if run.recipe.of_head
    }


def test_own_epochs_rerun_the_run(tmp_path):
    assert edited(tmp_path, ("runs.zoo1_fine_tune.epochs", 5)) == {"train.zoo1_fine_tune", "evaluate"}
    assert edited(tmp_path, ("networks.cnn_small.epochs", 5)) == OF_NETWORK["cnn_small"] | {"evaluate"}


@pytest.mark.parametrize(
    ("key", "value", "reruns"),
    [
        ("download.tries", 2, set()),
        ("features.batch_size", 8, set()),
        ("evaluate.baselines", ["svm"], {"evaluate"}),
        ("tune.trials", 7, set()),
        ("tracking.experiment", "mine", {"evaluate", "report"}),
        ("split.cell_arcmin", 3.0, set()),  # no dataset is split by cells
        ("split.link_arcmin", 3.0, {"split.galaxy10"}),
        ("weights.seed", 2, {"weights"}),
        ("on_bad_file", "skip", {"fetch", "render.sdss"} | {f"pack.{name}" for name in EXPERIMENT.pictures}),
        ("deterministic", True, RUNS | OF_HEADS),
        ("simulate.seed", 3, {"simulate"}),
        ("catalogue.n_fields", 17, {"catalogue", "fetch"}),
        ("archive.release", "dr16", {"catalogue", "fetch"}),
        ("archive.query_release", "dr9", {"catalogue"}),
        ("archive.frames_release", "dr12", {"fetch"}),
        ("archive.cutouts_release", "dr17", set()),  # as archive.release says
        ("datasets.pictures.galaxy10.size_px", 70, {"pack.galaxy10"}),
        ("runs.zoo_frozen.n_views", 5, {"features.galaxy_zoo_classes", "train.zoo_frozen", "evaluate"}),
    ],
)
def test_edit_of_a_value_reruns_what_it_shapes(tmp_path, key, value, reruns):
    assert edited(tmp_path, (key, value)) == reruns


def test_datasets_that_no_run_learns_from_are_not_split(tmp_path):
    yaml = YAML(typ="safe")
    params = yaml.load(PARAMS)
    del params["compare"]["datasets"]["sdss_rgb"]
    yaml.dump(params, tmp_path / "params.yaml")
    stages = plan_stages(read_experiment(tmp_path / "params.yaml"), OWN)
    assert stages["split"]["sdss_rgb"]["group_by"] is None
    assert stages["features"]["sdss_rgb"] == {"networks": {}}
    assert stages["split"]["sdss_cutouts"]["group_by"] == "field"


def test_without_the_demo_nothing_is_fetched_or_simulated(tmp_path):
    entry = {"format": "images", "source": "data/external/a", "id_column": "id", "label_column": "c", "size_px": 32}
    entry["classes"] = ["x", "y"]
    params = {
        "datasets": {"pictures": {"a": entry}},
        "compare": {"datasets": {"a": None}, "networks": {"cnn_small": None}},
    }
    YAML(typ="safe").dump(params, tmp_path / "params.yaml")
    stages = plan_stages(read_experiment(tmp_path / "params.yaml"), OWN)
    assert [stages[name] for name in ("catalogue", "fetch", "simulate")] == [{"needed": False}] * 3
    assert list(stages["train"]) == ["a-cnn_small"]
    assert stages["weights"]["networks"] == {"cnn_small": False}


def test_plan_is_the_same_bytes_and_gives_back_what_stages_run_with(tmp_path):
    for name in ("a.yaml", "b.yaml"):
        write_plan(EXPERIMENT, tmp_path / name)
    assert (tmp_path / "a.yaml").read_bytes() == (tmp_path / "b.yaml").read_bytes()
    plan = read_plan(tmp_path / "a.yaml")
    from deepsky.training.recipe import Recipe

    for name, run in EXPERIMENT.runs.items():
        again = plan.params(Recipe, "train", name)
        assert again.settings(own_head=run.own_head) == run.settings


def test_a_run_is_known_again_by_the_settings_that_its_training_writes(tmp_path):
    write_plan(EXPERIMENT, tmp_path / "plan.yaml")
    planned = {one.name: one.settings for one in planned_runs(read_plan(tmp_path / "plan.yaml"))}
    assert planned == {name: run.settings for name, run in EXPERIMENT.runs.items()}


def test_named_exceptions_exist():
    for name in NO_RESULT:
        path = SOURCE.joinpath(*name.split("."))
        assert path.is_dir() or path.with_suffix(".py").is_file(), name
    assert changes_no_result("deepsky.tracking.store")
    assert not changes_no_result("deepsky.training.fit")
