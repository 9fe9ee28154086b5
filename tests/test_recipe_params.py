"""Section recipes: what its dataclasses take and refuse."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from deepsky.commands import repro
from deepsky.config import build
from deepsky.datasets.packed import DatasetCard
from deepsky.errors import ConfigError, DataError
from deepsky.training.recipes import (
    FineTuneParams,
    FromScratchParams,
    FrozenParams,
    answer_of,
    check_views,
    swaps_of,
)
from tests.conftest import ROOT

FIT = {
    "seed": 1, "label_smoothing": 0.0, "optimizer": "adam", "learning_rate": 1e-3, "schedule": "one_cycle",
    "weight_decay": 0.0, "momentum": 0.9, "batch_size": 8, "epochs": 2, "patience": None, "keep": "last",
    "dataset": "toy", "input_size_px": 32, "augment": {"flip": True, "rotation_deg": 180},
}  # fmt: skip
IMAGES = {
    **FIT, "network": "cnn_small", "test_views": 1, "class_weights": "none", "mixup": 0.0, "precision": "float32",
    "answer": "softmax",
}  # fmt: skip
FINE_TUNE = {
    **IMAGES, "network": "mobilenet", "hidden_units": [16], "dropout": 0.1, "head_epochs": 1,
    "head_learning_rate": 1e-3, "unfreeze": "all", "norm": "batch",
}  # fmt: skip
FROZEN = {
    **FIT, "network": "mobilenet", "n_views": 4, "test_views": 1, "hidden_units": [16], "activation": "relu",
    "dropout": 0.0, "batch_norm": False, "l2": 0.0, "class_weights": "none",
}  # fmt: skip
CARD = DatasetCard("uint8", ("r", "g", "b"), (), ("cw", "acw", "smooth"), None, 0, mirrored=(("cw", "acw"),))


@pytest.mark.parametrize(
    ("entry", "kind"), [(IMAGES, FromScratchParams), (FINE_TUNE, FineTuneParams), (FROZEN, FrozenParams)]
)
def test_an_entry_is_read_key_by_key(entry: dict[str, Any], kind: type) -> None:
    params = build(entry, kind, "recipes.x")
    assert params.augment.rotation_deg == 180.0
    for key in entry:
        with pytest.raises(ConfigError, match=rf"recipes\.x: '{key}' is missing"):
            build({name: value for name, value in entry.items() if name != key}, kind, "recipes.x")
    with pytest.raises(ConfigError, match=r"recipes\.x: 'colour' is unknown"):
        build({**entry, "colour": 1}, kind, "recipes.x")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mixup": -0.1}, "mixup -0.1"),
        ({"mixup": float("nan")}, "mixup nan"),
        ({"input_size_px": 4}, "input_size_px must lie"),
        ({"test_views": 3}, "test_views: 3 is unknown"),
        ({"schedule": "linear"}, "schedule: 'linear' is unknown"),
        ({"answer": "tree", "class_weights": "balanced"}, "answer tree has no classes"),
        ({"answer": "sigmoid", "label_smoothing": 0.1}, "answer sigmoid has no classes"),
        ({"augment": {"rotation_deg": 200}}, "augment: rotation_deg"),
        ({"hidden_units": [8, 0]}, "hidden_units"),
        ({"dropout": 1.0}, "dropout"),
        ({"head_epochs": -1}, "head_epochs"),
        ({"head_learning_rate": 0}, "head_learning_rate"),
        ({"unfreeze": -1}, "unfreeze -1"),
        ({"norm": "none"}, "norm: 'none' is unknown"),
        ({"unfreeze": "top"}, "unfreeze: 'top' does not fit; write all or"),
    ],
)
def test_a_recipe_that_cannot_be_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build({**FINE_TUNE, **change}, FineTuneParams, "recipes.x")


@pytest.mark.parametrize("n_views", [-1, 65])
def test_frozen_views_are_bounded(n_views: int) -> None:
    with pytest.raises(ConfigError, match="n_views must lie between 0 and 64"):
        build({**FROZEN, "n_views": n_views}, FrozenParams, "recipes.x")


@pytest.mark.parametrize(("change", "message"), [({"hidden_units": [0]}, "hidden_units"), ({"dropout": -1}, "dropout")])
def test_the_head_of_a_network_from_scratch_is_bounded_too(change: dict[str, Any], message: str) -> None:
    assert build(IMAGES, FromScratchParams, "recipes.x").hidden_units == ()
    with pytest.raises(ConfigError, match=message):
        build({**IMAGES, **change}, FromScratchParams, "recipes.x")


@pytest.mark.parametrize(
    ("refused", "augment", "test_views", "message"),
    [
        (("mirror",), {"flip": True}, 1, "flip true would mirror images .*; set flip: false"),
        (("mirror",), {}, 2, "test_views 2 would mirror"),
        (("mirror",), {}, 8, "test_views 8 would mirror"),
        (("turn",), {"rotation_deg": 31}, 1, "rotation_deg 31 would turn images .*; set it to 30 or less"),
        (("turn",), {}, 4, "test_views 4 would turn"),
        (("mirror", "turn"), {"rotation_deg": 30, "shift": 0.1}, 1, None),
        (("turn",), {"flip": True}, 2, None),
        ((), {"flip": True, "rotation_deg": 180}, 8, None),
    ],
)
def test_a_view_that_changes_what_an_image_shows_is_refused(
    refused: tuple[str, ...], augment: dict[str, Any], test_views: int, message: str | None
) -> None:
    card = replace(CARD, refused=refused)
    changed = {"augment": augment, "test_views": test_views}
    recipes = [build({**IMAGES, **changed}, FromScratchParams, "recipes.x")]
    recipes.append(build({**FROZEN, **changed}, FrozenParams, "recipes.x"))
    for recipe in recipes:
        if message is None:
            check_views(recipe, card)
        else:
            with pytest.raises(ConfigError, match=f"recipe of toy: {message}"):
                check_views(recipe, card)


def test_the_answer_must_fit_the_target() -> None:
    params = build(IMAGES, FromScratchParams, "recipes.x")
    fractions = replace(CARD, target="fractions", classes=("galaxy",), mirrored=())
    with pytest.raises(ConfigError, match=r"recipe of toy: answer softmax is for classes; set answer: tree"):
        answer_of(params, fractions)
    for answer in ("sigmoid", "tree"):
        with pytest.raises(ConfigError, match=rf"recipe of toy: answer {answer} is for vote fractions"):
            answer_of(replace(params, answer=answer), CARD)


def test_swaps_are_of_classes_only() -> None:
    assert list(swaps_of(CARD)) == [1, 0, 2]
    assert list(swaps_of(replace(CARD, target="fractions", classes=("galaxy",), mirrored=()))) == list(range(37))
    with pytest.raises(DataError, match="acw"):
        swaps_of(replace(CARD, classes=("cw", "smooth")))


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        (
            "dataset",
            "zoo9",
            r"recipes.fine_tune.zoo1_fine_tune: dataset 'zoo9' is unknown; choose one of: sdss_",
        ),
        ("network", "densenet121", r"weights of network 'densenet121' are not made ready; correct the name, or"),
    ],
)
def test_repro_names_a_recipe_that_no_stage_serves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str, value: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    params = YAML(typ="safe").load(ROOT / "params.yaml")
    params["recipes"]["fine_tune"]["zoo1_fine_tune"][key] = value
    YAML(typ="safe").dump(params, Path("params.yaml"))
    with pytest.raises(ConfigError, match=message):
        repro.run(1)
