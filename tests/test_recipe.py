"""A recipe: what it takes and refuses, what of it has an effect, and what its dataset allows."""

import json
import re
from dataclasses import asdict, fields, replace
from typing import Any

import pytest

from deepsky.config import build
from deepsky.datasets.packed import DatasetCard
from deepsky.errors import ConfigError, DataError
from deepsky.networks.params import AugmentParams
from deepsky.training.answers import answer_of, check_views, swaps_of
from deepsky.training.recipe import MAX_VIEWS, Origin, Recipe, ViewSpec
from tests.run_project import FINE, FLIPS, HEADS, NET

CARD = DatasetCard("uint8", ("r", "g", "b"), (), ("cw", "acw", "smooth"), None, 0, mirrored=(("cw", "acw"),))
FRACTIONS = replace(CARD, target="fractions", classes=("galaxy",), mirrored=())
NAN, INF = float("nan"), float("inf")
HEAD_ONLY = {"activation", "batch_norm", "l2", "n_views"}
PIXELS = {"augment", "mixup"}
START = {"norm", "head_epochs", "head_learning_rate"}
CLASSES = {"class_weights", "label_smoothing", "monitor", "calibrate"}
ALWAYS = (
    {field.name for field in fields(Recipe)}
    - {"origin", "hidden_units", "dropout"} - HEAD_ONLY - PIXELS - START - CLASSES
)  # fmt: skip


def test_dataset_and_network_are_enough() -> None:
    recipe = Recipe(dataset="toy", network="mobilenet")
    assert (recipe.of_head, recipe.start, recipe.epochs) == (True, "pretrained", 10)
    for missing in ({"dataset": "toy"}, {"network": "mobilenet"}):
        with pytest.raises(TypeError, match="missing 1 required keyword-only argument"):
            Recipe(**missing)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        *[({name: value}, f"{name} must lie above 0 and not above 1000, not {re.escape(str(value))}")
          for name in ("learning_rate", "head_learning_rate") for value in (0, -1e-3, 1e300, INF, NAN)],
        *[({name: value}, f"{name} must lie between {least} and 100000, not {value}")
          for name, least in (("epochs", 1), ("head_epochs", 0)) for value in (least - 1, 10**30, INF, NAN)],
        *[({"batch_size": value}, f"batch_size must lie between 1 and 65536, not {value}") for value in (0, 10**30)],
        *[({"seed": value}, f"seed must lie between 0 and 4294967295, not {value}") for value in (-1, 2**32)],
        *[({"input_size_px": value}, f"input_size_px must lie between 8 and 1024, not {value}") for value in (7, 1025)],
        *[({"n_views": value}, f"n_views must lie between 0 and 64, not {value}") for value in (-1, MAX_VIEWS + 1)],
        *[({name: value}, f"{name} must lie between 0 and 1000, not {re.escape(str(value))}")
          for name in ("l2", "weight_decay") for value in (-0.1, 1e300, NAN)],
        *[({"mixup": value}, f"mixup must lie between 0 and 10, not {value}") for value in (-0.1, 11, NAN)],
        *[({name: value}, rf"{name} {value} does not lie in \[0, 1\)")
          for name in ("dropout", "label_smoothing", "momentum") for value in (-0.1, 1.0, NAN)],
        *[({"hidden_units": value}, "hidden_units .* must all lie between 1 and 65536")
          for value in ((8, 0), (-1,), (10**30,))],
        *[({"patience": value}, f"patience {value} does not lie between 1 and 100000; null means never")
          for value in (0, -1, 10**30)],
        *[({"learn": value}, f"learn {value} must be head, all, or how many of the last blocks learn")
          for value in (0, -1, 10**30)],
        ({"start": "scratch"}, "start: scratch draws the whole network, so learn head would keep it random"),
        ({"start": "scratch", "learn": 2}, "so learn 2 would keep it random"),
        ({"answer": "tree", "class_weights": "balanced"}, "answer tree has no classes: set class_weights: none"),
        ({"answer": "sigmoid", "label_smoothing": 0.1}, "answer sigmoid has no classes"),
        ({"answer": "tree", "monitor": "val_accuracy"}, "answer tree has no classes: .* and calibrate: none"),
    ],
)  # fmt: skip
def test_a_recipe_that_cannot_be_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Recipe(dataset="toy", network="mobilenet", **change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"test_views": 3}, "test_views: 3 is unknown; choose one of: 1, 2, 4, 8"),
        ({"schedule": "linear"}, "schedule: 'linear' is unknown"),
        ({"norm": "none"}, "norm: 'none' is unknown"),
        ({"learn": "top"}, "learn: 'top' does not fit"),
        ({"learn": True}, "learn: True does not fit"),
        ({"epochs": True}, "epochs: True is not a whole number"),
        ({"learning_rate": "1e-3"}, "learning_rate: '1e-3' is not a number"),
        ({"augment": {"rotation_deg": 200}}, "augment: rotation_deg must lie between 0 and 180"),
        ({"learning_rate": INF}, "learning_rate: inf is not finite"),
        ({"colour": 1}, "'colour' is unknown"),
    ],
)
def test_what_params_yaml_says_wrong_is_one_line(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build({"dataset": "toy", "network": "mobilenet", **change}, Recipe, "runs.x")


@pytest.mark.parametrize(
    ("recipe", "own_head", "names"),
    [
        (replace(HEADS, n_views=0), False, HEAD_ONLY | CLASSES | {"hidden_units", "dropout"}),
        (HEADS, False, HEAD_ONLY | CLASSES | {"hidden_units", "dropout", "augment"}),
        (replace(HEADS, answer="tree"), False, HEAD_ONLY | {"hidden_units", "dropout", "augment"}),
        (FINE, False, PIXELS | START | CLASSES | {"hidden_units", "dropout"}),
        (replace(FINE, learn="all", answer="sigmoid"), False, PIXELS | START | {"hidden_units", "dropout"}),
        (replace(FINE, start="scratch", learn="all"), False, PIXELS | CLASSES | {"hidden_units", "dropout"}),
        (NET, True, PIXELS | CLASSES),
    ],
)
def test_settings_are_what_has_an_effect(recipe: Recipe, own_head: bool, names: set[str]) -> None:
    settings = recipe.settings(own_head=own_head)
    assert set(settings) == ALWAYS | names
    # They are JSON, and params.yaml's own words: another recipe of these alone is the same one.
    assert json.loads(json.dumps(settings)) == settings
    assert build(settings, Recipe, "runs.x").settings(own_head=own_head) == settings
    # A key that stands there counts; one that does not, does not.
    rates = replace(recipe, head_learning_rate=0.5).settings(own_head=own_head)
    assert (rates == settings) == ("head_learning_rate" not in names)


def test_settings_tell_where_they_were_found_only_where_they_were() -> None:
    assert "origin" not in FINE.settings(own_head=False)
    found = replace(FINE, origin=Origin(study="s", trial=17, run="fine")).settings(own_head=False)
    assert found.pop("origin") == {"study": "s", "trial": 17, "run": "fine"}
    assert found == FINE.settings(own_head=False)


@pytest.mark.parametrize(
    ("change", "chooses"), [({"keep": "best"}, True), ({"patience": 3}, True), ({"keep": "last"}, False)]
)
def test_val_rows_choose_the_epoch_or_the_end(change: dict[str, Any], chooses: bool) -> None:
    assert replace(NET, **change).chooses == chooses


def test_heads_share_the_features_that_are_the_same_to_them() -> None:
    plain = replace(HEADS, n_views=0)
    assert plain.views.name == "32px"
    for change in ({"seed": 9}, {"augment": AugmentParams()}, {"epochs": 9}, {"hidden_units": ()}, {"dataset": "x"}):
        assert replace(plain, **change).views == plain.views
    assert replace(HEADS, learning_rate=1e-4, dropout=0.2).views == HEADS.views
    others = [
        replace(plain, **change).views.name
        for change in (
            {}, {"input_size_px": 64}, {"test_views": 2}, {"test_views": 8}, {"n_views": 2}, {"n_views": 3},
            {"n_views": 2, "seed": 2}, {"n_views": 2, "test_views": 2}, {"n_views": 2, "augment": FLIPS.times(0.5)},
        )
    ]  # fmt: skip
    assert len(set(others)) == len(others)
    assert others[4] == HEADS.views.name
    assert all(name.replace("-", "").isalnum() for name in others), "they are names of folders"
    assert ViewSpec(**{**asdict(HEADS.views), "augment": HEADS.augment}).name == HEADS.views.name


@pytest.mark.parametrize(
    ("refused", "augment", "test_views", "message"),
    [
        (("mirror",), {"flip": True}, 1, r"flip true would mirror images .*; set flip: false"),
        (("mirror",), {}, 2, "test_views 2 would mirror"),
        (("mirror",), {}, 8, "test_views 8 would mirror"),
        (("turn",), {"rotation_deg": 31}, 1, r"rotation_deg 31 would turn images .*; set it to 30 or less"),
        (("turn",), {}, 4, "test_views 4 would turn"),
        (("mirror", "turn"), {"rotation_deg": 30, "shift": 0.1}, 1, None),
        (("turn",), {"flip": True}, 2, None),
        ((), {"flip": True, "rotation_deg": 180}, 8, None),
    ],
)
def test_a_view_that_changes_what_an_image_shows_is_refused(
    refused: tuple[str, ...], augment: dict[str, Any], test_views: Any, message: str | None
) -> None:
    card = replace(CARD, refused=refused)
    for recipe in (HEADS, FINE, NET):
        changed = replace(recipe, augment=AugmentParams(**augment), test_views=test_views)
        if message is None:
            check_views(changed, card)
        else:
            with pytest.raises(ConfigError, match=f"a run of toy: {message}"):
                check_views(changed, card)


def test_views_that_a_head_never_sees_are_no_reason_to_refuse() -> None:
    check_views(replace(HEADS, n_views=0), replace(CARD, refused=("mirror", "turn")))


def test_the_answer_must_fit_the_target() -> None:
    with pytest.raises(ConfigError, match="a run of toy: answer softmax is for classes; set answer: tree"):
        answer_of(NET, FRACTIONS)
    for answer in ("sigmoid", "tree"):
        with pytest.raises(ConfigError, match=f"a run of toy: answer {answer} is for vote fractions"):
            answer_of(replace(NET, answer=answer), CARD)
        answer_of(replace(NET, answer=answer), FRACTIONS)


def test_swaps_are_of_classes_only() -> None:
    assert list(swaps_of(CARD)) == [1, 0, 2]
    assert list(swaps_of(FRACTIONS)) == list(range(37))
    with pytest.raises(DataError, match="acw"):
        swaps_of(replace(CARD, classes=("cw", "smooth")))
