"""Answers: probabilities, fractions that know nothing of each other, fractions that obey the decision tree."""

from collections.abc import Callable, Iterator
from pathlib import Path

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from deepsky.catalogue.decision_tree import COLUMNS, QUESTIONS, compose, places, sums_wanted
from deepsky.networks.heads import Answer, build_head, sigmoid_answer, softmax_answer, tree_answer
from deepsky.networks.saving import save_h5
from deepsky.networks.tree import TreeFractions

ANSWERS: dict[str, Callable[[], Answer]] = {
    "softmax": lambda: softmax_answer(4),
    "sigmoid": lambda: sigmoid_answer(37),
    "tree": tree_answer,
}


def tree_error(fractions: np.ndarray) -> float:
    errors = [fractions[:, places(one)].sum(axis=1) - sums_wanted(fractions, one) for one in QUESTIONS]
    return float(np.abs(errors).max())


def fractions_of(logits: np.ndarray) -> np.ndarray:
    return keras.ops.convert_to_numpy(TreeFractions()(logits.astype(np.float32))).astype(float)


@settings(max_examples=60, deadline=None)
@given(arrays(np.float32, (5, 37), elements=st.floats(-1e6, 1e6, width=32)))
def test_every_sum_of_the_tree_holds_for_any_logits(logits: np.ndarray) -> None:
    fractions = fractions_of(logits)
    assert tree_error(fractions) < 1e-6
    assert fractions.min() >= 0


def test_tree_is_the_one_of_the_catalogue() -> None:
    logits = np.random.default_rng(3).normal(0, 3, (50, 37))
    answers = np.exp(logits)
    for question in QUESTIONS:
        answers[:, places(question)] /= answers[:, places(question)].sum(axis=1, keepdims=True)
    np.testing.assert_allclose(fractions_of(logits), compose(answers), atol=1e-6)
    assert tree_error(answers) > 0.1, "the sums must not hold by themselves"


@pytest.fixture
def mixed_precision() -> Iterator[None]:
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    yield
    keras.config.set_dtype_policy(before)


@pytest.mark.usefixtures("mixed_precision")
@pytest.mark.parametrize("name", ANSWERS)
def test_answers_count_in_float32_also_under_mixed_precision(name: str) -> None:
    head = build_head(6, ANSWERS[name](), (8,), "relu")
    assert head.get_layer("hidden_1").compute_dtype == "bfloat16"
    answer = head.predict(np.random.default_rng(1).normal(0, 30, (20, 6)).astype(np.float32), verbose=0)
    assert answer.dtype == np.float32
    if name == "softmax":
        np.testing.assert_allclose(answer.sum(axis=1), 1, atol=1e-6)
    if name == "tree":
        assert tree_error(answer.astype(float)) < 1e-6


@pytest.mark.parametrize("name", ANSWERS)
def test_saved_heads_answer_the_same_and_are_named_after_what_they_hold(name: str, tmp_path: Path) -> None:
    head = build_head(6, ANSWERS[name](), (8,), "relu", l2=0.1)
    features = np.random.default_rng(1).normal(0, 3, (5, 6)).astype(np.float32)
    save_h5(head, tmp_path / "head.h5")
    loaded = keras.models.load_model(tmp_path / "head.h5", compile=False)
    np.testing.assert_allclose(loaded.predict(features, verbose=0), head.predict(features, verbose=0), atol=1e-7)
    assert head.output_names == ["probabilities" if name == "softmax" else "fractions"]
    assert [float(one) for one in loaded.losses] == pytest.approx([float(one) for one in head.losses])


@pytest.mark.parametrize("name", ANSWERS)
def test_the_penalty_is_on_every_kernel(name: str) -> None:
    head = build_head(6, ANSWERS[name](), (8,), "relu", l2=0.1)
    kernels = [weight for weight in head.trainable_weights if weight.name == "kernel"]
    assert len(kernels) == 2
    expected = [0.1 * float((kernel.numpy() ** 2).sum()) for kernel in kernels]
    assert sorted(float(one) for one in head.losses) == pytest.approx(sorted(expected))
    assert build_head(6, ANSWERS[name](), (8,), "relu").losses == []


@pytest.mark.parametrize("spread", [0.3, 1e4])
def test_a_tree_learns_and_stays_finite(spread: float) -> None:
    """Logits of thousands leave nothing to learn by, but no NaN either."""
    features = np.random.default_rng(2).normal(0, spread, (64, 6)).astype(np.float32)
    share = 1 / (1 + np.exp(-features[:, :1] / spread))
    answers = np.concatenate([np.zeros((64, one)) + 1 / one for one in (len(q.answers) for q in QUESTIONS)], axis=1)
    answers[:, :3] = np.concatenate([share * 0.9, (1 - share) * 0.9, np.full((64, 1), 0.1)], axis=1)
    head = build_head(6, tree_answer(), (), "relu", seed=4)
    head.compile(keras.optimizers.Adam(0.05), loss="mse")
    losses = head.fit(features, compose(answers), batch_size=64, epochs=20, verbose=0).history["loss"]
    assert all(np.isfinite(weight).all() for weight in head.get_weights())
    assert np.isfinite(losses).all()
    if spread < 1:
        assert losses[-1] < 0.5 * losses[0]
        assert tree_error(head.predict(features, verbose=0).astype(float)) < 1e-6


def test_one_answer_serves_many_networks() -> None:
    for make in ANSWERS.values():
        answer = make()
        one, other = build_head(3, answer, (), "relu"), build_head(5, answer, (), "relu")
        assert not {id(weight) for weight in one.weights} & {id(weight) for weight in other.weights}
    assert len(COLUMNS) == build_head(3, tree_answer(), (), "relu").output_shape[1]


def test_the_reference_head_on_mobilenet_has_the_parameters_that_the_study_printed() -> None:
    """5,854,403 in all, of which 2,625,539 learn; the other 3,228,864 are MobileNet's own."""
    head = build_head(1024, softmax_answer(3), (1024, 1024, 512), "relu")
    learning = sum(int(np.prod(weight.shape)) for weight in head.trainable_weights)
    assert learning == head.count_params() == 2_625_539
    assert learning + 3_228_864 == 5_854_403
