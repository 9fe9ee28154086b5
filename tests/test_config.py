from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest

from deepsky.config import SECTIONS, read_choice, read_recipes, read_section, read_yaml
from deepsky.datasets.splits import SplitParams
from deepsky.errors import ConfigError

ROOT = Path(__file__).resolve().parents[1]
GOOD = "split: {seed: 1, test_fraction: 0.2, val_fraction: 2e-1, cell_arcmin: 2, link_arcmin: 2.0}\n"


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "params.yaml"
    path.write_text(text)
    return path


def test_reads_a_section_with_yaml_1_2_floats(tmp_path):
    params = read_section("split", SplitParams, write(tmp_path, GOOD))
    assert params == SplitParams(seed=1, test_fraction=0.2, val_fraction=0.2, cell_arcmin=2.0, link_arcmin=2.0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (GOOD.replace("seed", "sede"), r"params.yaml: split: 'sede' is unknown; known keys: seed, "),
        (GOOD.replace("seed: 1, ", ""), r"params.yaml: split: 'seed' is missing; add it"),
        (GOOD.replace("seed: 1", "seed: one"), r"split.seed: 'one' is not of type int"),
        (GOOD.replace("0.2", "0.9"), r"split: test_fraction and val_fraction must"),
        (GOOD.replace("split", "spilt"), r"params.yaml: 'spilt' is unknown"),
        ("train: {}\n", r"'split' is missing; choose one of: train"),
        ("split: [\n", r"is not valid YAML"),
        ("split: 3\n", r"3 is not a mapping"),
    ],
)
def test_refuses_in_one_line(tmp_path, text, message):
    with pytest.raises(ConfigError, match=message) as caught:
        read_section("split", SplitParams, write(tmp_path, text))
    assert "\n" not in str(caught.value)


def test_refuses_a_missing_file(tmp_path):
    with pytest.raises(ConfigError, match=r"cannot be read .* run from the project's root"):
        read_yaml("split", tmp_path / "params.yaml")


@dataclass(frozen=True)
class Nested:
    names: tuple[str, ...]
    size: int | None = None


def test_optional_values_and_lists(tmp_path):
    path = write(tmp_path, "train: {names: [a, b], size: null}\n")
    assert read_section("train", Nested, path) == Nested(("a", "b"))
    with pytest.raises(ConfigError, match="'a' is not a list"):
        read_section("train", Nested, write(tmp_path, "train: {names: a}\n"))


def test_choice(tmp_path):
    path = write(tmp_path, "on_bad_file: continue\n")
    with pytest.raises(ConfigError, match="'continue' is unknown; choose one of: stop, skip"):
        read_choice("on_bad_file", ("stop", "skip"), path)


def test_the_projects_own_file_holds_every_section():
    assert set(read_yaml(path=ROOT / "params.yaml")) == set(SECTIONS)


@dataclass(frozen=True)
class Span:
    low: int
    high: int

    def __post_init__(self) -> None:
        if self.low > self.high:
            raise ValueError("low lies above high")


@dataclass(frozen=True)
class Forms:
    width: Span | tuple[int, ...]
    count: int | Literal["auto"]
    rate: Span | float | None = None


def forms(tmp_path: Path, text: str) -> Forms:
    return read_section("train", Forms, write(tmp_path, f"train: {{{text}}}\n"))


def test_a_union_is_resolved_by_the_form_of_the_value(tmp_path):
    assert forms(tmp_path, "width: {low: 1, high: 2}, count: 3") == Forms(Span(1, 2), 3)
    assert forms(tmp_path, "width: [1, 2], count: auto, rate: 1e-3") == Forms((1, 2), "auto", 1e-3)
    assert forms(tmp_path, "width: [], count: auto, rate: null") == Forms((), "auto", None)
    assert forms(tmp_path, "width: [], count: 1, rate: {low: 1, high: 1}").rate == Span(1, 1)
    assert isinstance(forms(tmp_path, "width: [], count: 1, rate: 1").rate, float)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("width: 3, count: 3", r"train.width: 3 does not fit; write {low: ..., high: ...} or a list \[a, b\]"),
        ("width: {low: 2, high: 1}, count: 3", r"train.width: low lies above high"),
        ("width: {low: 2}, count: 3", r"train.width: 'high' is missing"),
        ("width: [1, a], count: 3", r"train.width: 'a' is not of type int"),
        ("width: [], count: many", r"train.count: 'many' does not fit; write a value of type int or auto"),
        ("width: [], count: null", r"train.count: None does not fit"),
        ("width: [], count: true", r"train.count: True does not fit"),
    ],
)
def test_a_value_of_none_of_the_forms_is_refused(tmp_path, text, message):
    with pytest.raises(ConfigError, match=message) as caught:
        forms(tmp_path, text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{frozen: {}, fine_tune: {}, from_scratch: {}, finetune: {}}", "recipes: 'finetune' is unknown; known ways: "),
        ("{frozen: null, fine_tune: {}, from_scratch: {}}", r"recipes.frozen: None is not a mapping; write \{\} where"),
        ("{fine_tune: {}, from_scratch: {}}", "'frozen' is missing"),
        ("null", "recipes: None is not a mapping"),
    ],
)
def test_ways_of_recipes_are_mappings_with_known_names(tmp_path, text, message):
    with pytest.raises(ConfigError, match=message):
        read_recipes(write(tmp_path, f"recipes: {text}\n"))
