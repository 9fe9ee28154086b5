from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest

from deepsky.config import build, read_yaml
from deepsky.datasets.params import SplitParams
from deepsky.errors import ConfigError, ConfigErrors

GOOD = "split: {seed: 1, test_fraction: 0.2, val_fraction: 2e-1, cell_arcmin: 2, link_arcmin: 2.0}\n"


def read(tmp_path: Path, text: str, kind: Any, section: str = "split") -> Any:
    path = tmp_path / "params.yaml"
    path.write_text(text)
    return build(read_yaml(path)[section], kind, f"params.yaml: {section}")


def test_reads_yaml_1_2_floats(tmp_path):
    expected = SplitParams(seed=1, test_fraction=0.2, val_fraction=0.2, cell_arcmin=2.0, link_arcmin=2.0)
    assert read(tmp_path, GOOD, SplitParams) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (GOOD.replace("seed", "sede"), r"params.yaml: split: 'sede' is unknown; known keys: seed, "),
        (GOOD.replace("seed: 1", "seed: one"), r"split.seed: 'one' is not a whole number"),
        (GOOD.replace("seed: 1", "seed: true"), r"split.seed: True is not a whole number"),
        (GOOD.replace("0.2", ".nan"), r"split.test_fraction: nan is not finite"),
        (GOOD.replace("0.2", "0.9"), r"split: test_fraction and val_fraction must"),
        ("split: [\n", r"is not valid YAML"),
        ("split: 3\n", r"3 is not a mapping"),
        ("3\n", r"params.yaml: is not a mapping"),
    ],
)
def test_refuses_in_one_line(tmp_path, text, message):
    with pytest.raises(ConfigError, match=message) as caught:
        read(tmp_path, text, SplitParams)
    assert "\n" not in str(caught.value)


def test_all_that_is_wrong_is_told_a_line_each(tmp_path):
    with pytest.raises(ConfigErrors) as caught:
        read(tmp_path, "split: {seed: one, test_fraction: yes please, sede: 1}\n", SplitParams)
    lines = str(caught.value).split("\nerror: ")
    assert [line.partition("; ")[0] for line in lines] == [
        "params.yaml: split.seed: 'one' is not a whole number",
        "params.yaml: split.test_fraction: 'yes please' is not a number",
        "params.yaml: split: 'sede' is unknown",
    ]


def test_refuses_a_missing_file(tmp_path):
    with pytest.raises(ConfigError, match=r"cannot be read .* run from the project's root"):
        read_yaml(tmp_path / "params.yaml")


@dataclass(frozen=True)
class Nested:
    names: tuple[str, ...]
    size: int | None = None


def test_optional_values_and_lists(tmp_path):
    assert read(tmp_path, "split: {names: [a, b], size: null}\n", Nested) == Nested(("a", "b"))
    with pytest.raises(ConfigError, match="'a' is not a list"):
        read(tmp_path, "split: {names: a}\n", Nested)
    with pytest.raises(ConfigError, match="'names' is missing; add it"):
        read(tmp_path, "split: {}\n", Nested)


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
    made: Forms = read(tmp_path, f"train: {{{text}}}\n", Forms, "train")
    return made


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
        ("width: [1, a], count: 3", r"train.width: 'a' is not a whole number"),
        ("width: [], count: many", r"train.count: 'many' does not fit; write a whole number or auto"),
        ("width: [], count: null", r"train.count: None does not fit"),
        ("width: [], count: true", r"train.count: True does not fit"),
    ],
)
def test_a_value_of_none_of_the_forms_is_refused(tmp_path, text, message):
    with pytest.raises(ConfigError, match=message) as caught:
        forms(tmp_path, text)
    assert "\n" not in str(caught.value)


def test_words_and_numbers_are_not_mixed_up(tmp_path):
    kind = Literal[1, 2, 4]
    assert read(tmp_path, "split: 2\n", kind) == 2
    for text in ("true", "2.0", "'2'"):
        with pytest.raises(ConfigError, match="is unknown; choose one of: 1, 2, 4"):
            read(tmp_path, f"split: {text}\n", kind)
