"""Fitting: batches, blending, weights, phases, schedules, mixed precision, waiting."""

import random
import threading
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import keras
import numpy as np
import pandas as pd
import pytest

from deepsky.datasets.packed import open_packed
from deepsky.errors import ConfigError, DataError
from deepsky.networks.augment import RandomView
from deepsky.networks.heads import build_head, softmax_answer
from deepsky.networks.params import AugmentParams
from deepsky.networks.portable import portable
from deepsky.training import batches as batches_module
from deepsky.training import input_wait
from deepsky.training.batches import SplitBatches, TrainBatches, balance, blend
from deepsky.training.build import make_job
from deepsky.training.examples import Examples, read_split
from deepsky.training.fit import (
    FRACTION_COLUMNS,
    HISTORY_COLUMNS,
    OneRateAdamW,
    Phase,
    PlainLosses,
    compile_learner,
    fit_phases,
    make_optimizer,
    make_rate,
)
from deepsky.training.input_wait import InputWait
from deepsky.training.job import Job
from deepsky.training.predict import predict_batches
from deepsky.training.recipe import Recipe
from tests.toy_galaxies import write_galaxies

RECIPE = Recipe(
    dataset="toy", network="cnn_small", start="scratch", learn="all", input_size_px=16, label_smoothing=0.1,
    learning_rate=3e-3, batch_size=8, epochs=6, keep="last",
)  # fmt: skip
HEAD = Recipe(dataset="toy", network="tiny", learning_rate=1e-2, batch_size=8, epochs=6, keep="last")


def examples(n_rows: int = 37) -> Examples:
    """Pictures with random labels."""
    rng = np.random.default_rng(0)
    label = rng.integers(0, 3, n_rows)
    images = rng.integers(0, 256, (n_rows, 16, 16, 3), dtype=np.uint8)
    split = np.array(["train"] * (n_rows - 8) + ["val"] * 8)
    return Examples(images, np.arange(n_rows)[::-1].copy(), np.eye(3, dtype=np.float32)[label], split)


def separable(n_rows: int = 120) -> Examples:
    """Features that tell three classes apart."""
    rng = np.random.default_rng(0)
    label = np.arange(n_rows) % 3
    inputs = rng.normal(0, 0.3, (n_rows, 5)).astype(np.float32)
    inputs[np.arange(n_rows), label] += 2
    split = np.where(np.arange(n_rows) < 80, "train", "val")
    return Examples(inputs, np.arange(n_rows), np.eye(3, dtype=np.float32)[label], split)


def fit(model: keras.Model, data: Examples, *phases: Phase, callbacks: Any = ()) -> Any:
    """Fit a model of which everything is the tail."""
    return fit_phases(model, model, data, phases, lambda recipe, done: TrainBatches(data, recipe, done), callbacks)


def fit_head(data: Examples, recipe: Recipe = HEAD, activation: str = "relu", callbacks: Any = ()) -> Any:
    return fit(build_head(5, softmax_answer(3), (16,), activation), data, Phase(recipe), callbacks=callbacks)


def job_of(folder: Path, recipe: Recipe = RECIPE, **options: Any) -> Job:
    galaxies = write_galaxies(folder, **options)
    packed = open_packed(galaxies / "packed")
    return make_job("toy_job", recipe, packed, read_split(galaxies / "split.csv", packed), weights=folder)


def check_order_of_rows() -> None:
    """Compare a fit with the same steps one by one, under any backend."""
    data, recipe = examples(61), replace(RECIPE, epochs=3, label_smoothing=0.0)
    model, again = small_model(), small_model()
    again.set_weights(model.get_weights())
    fit(model, data, Phase(recipe))
    batches = TrainBatches(data, recipe)
    assert len(batches) == 7
    compile_learner(again, recipe, make_optimizer(recipe, n_steps=3 * len(batches)))
    for _ in range(recipe.epochs):
        batches.on_epoch_end()  # Keras also does before the first epoch
        for step in steps_of(batches):
            again.train_on_batch(*step)
    for one, other in zip(model.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


def steps_of(batches: SplitBatches) -> list[tuple[np.ndarray, ...]]:
    return [batches[step] for step in range(len(batches))]


def test_first_weights_follow_from_the_seed_whatever_other_threads_draw(tmp_path: Path) -> None:
    job = job_of(tmp_path)
    ended = threading.Event()

    def draw() -> None:
        while not ended.is_set():
            random.random()

    thread = threading.Thread(target=draw)
    thread.start()
    try:
        disturbed = job.build_tail().get_weights()
    finally:
        ended.set()
        thread.join()
    for one, other in zip(job.tail.get_weights(), disturbed, strict=True):
        np.testing.assert_array_equal(one, other)
    keras.utils.set_random_seed(RECIPE.seed)
    assert random.randint(1, 10**9) == random.Random(RECIPE.seed).randint(1, 10**9), "Python's own is back"


def test_an_epoch_shows_each_train_row_once_in_an_order_of_its_own() -> None:
    data = examples()
    batches, again = TrainBatches(data, RECIPE), TrainBatches(data, RECIPE, first_epoch=1)
    first = steps_of(batches)
    assert [len(images) for images, _ in first] == [8, 8, 8, 5]
    batches.on_epoch_end()
    second = steps_of(batches)
    for epoch in (first, second):
        shown = np.concatenate([images for images, _ in epoch])
        wanted = data.inputs[data.image[data.rows("train")]]
        assert sorted(map(bytes, shown)) == sorted(map(bytes, wanted))
    assert not np.array_equal(first[0][0], second[0][0])
    for step, other in zip(second, steps_of(again), strict=True):  # an epoch is the same wherever a fit begins
        np.testing.assert_array_equal(step[0], other[0])
        np.testing.assert_array_equal(step[1], other[1])
    watched = steps_of(SplitBatches(data, "val", 3))
    np.testing.assert_array_equal(np.concatenate([t for _, t in watched]), data.targets[data.rows("val")])


def test_a_fit_learns_from_the_rows_of_each_epoch_in_its_order() -> None:
    check_order_of_rows()


def test_blending_keeps_shares_of_images_and_targets_alike() -> None:
    images = np.zeros((6, 2, 2, 1), np.uint8)
    images[::2] = 200
    targets = np.eye(2, dtype=np.float32)[[0, 1] * 3]
    blended, mixed = blend(images, targets, 1.0, np.random.default_rng(3))
    assert blended.dtype == np.uint8
    np.testing.assert_allclose(blended[:, 0, 0, 0], np.rint(200 * mixed[:, 0]), atol=1)
    np.testing.assert_allclose(mixed.sum(axis=1), 1, atol=1e-6)
    assert ((mixed > 0.1) & (mixed < 0.9)).any()
    flux, _ = blend(images.astype(np.float32), targets, 1.0, np.random.default_rng(3))
    assert flux.dtype == np.float32
    data, recipe = examples(), replace(RECIPE, mixup=0.5)
    for one, other in zip(steps_of(TrainBatches(data, recipe)), steps_of(TrainBatches(data, recipe)), strict=True):
        np.testing.assert_array_equal(one[0], other[0])
        assert one[1].max(axis=1).min() < 1


def test_balanced_weights_give_every_class_the_same_sum() -> None:
    targets = np.eye(3, dtype=np.float32)[[0] * 6 + [1] * 3 + [2]]
    weights = targets @ balance(targets)
    np.testing.assert_allclose([weights[:6].sum(), weights[6:9].sum(), weights[9]], 10 / 3, rtol=1e-6)
    assert weights.mean() == pytest.approx(1)
    steps = steps_of(TrainBatches(examples(), replace(RECIPE, class_weights="balanced")))
    assert np.concatenate([weight for _, _, weight in steps]).mean() == pytest.approx(1)


def test_it_learns_and_tells_each_epoch(tmp_path: Path) -> None:
    recipe = replace(RECIPE, mixup=0.1, class_weights="balanced", schedule="one_cycle", learning_rate=1e-2, epochs=10)
    job = job_of(tmp_path, recipe)
    seen: list[dict[str, float]] = []
    watch = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: seen.append(dict(logs)))
    history = job.fit([watch])
    assert tuple(history.columns) == HISTORY_COLUMNS
    assert list(history["epoch"]) == list(range(1, 11))
    assert history["val_accuracy"].iloc[-1] > 0.8
    assert all(0 <= logs["input_wait_share"] < 1 for logs in seen)
    assert seen[-1]["loss"] == pytest.approx(history["loss"].iloc[-1])
    assert seen[-1]["objective"] != pytest.approx(seen[-1]["loss"])  # smoothed and weighted
    answers = job.answers()
    test = job.split == "test"
    assert (answers.argmax(axis=1) == job.packed.labels)[test].mean() > 0.8


def test_vote_fractions_are_fitted_by_their_error(tmp_path: Path) -> None:
    recipe = replace(RECIPE, label_smoothing=0.0, answer="tree", mixup=0.2)
    job = job_of(tmp_path, recipe, fractions=True)
    history = job.fit([])
    assert tuple(history.columns) == FRACTION_COLUMNS
    np.testing.assert_allclose(history["val_loss"], history["val_rmse"] ** 2, rtol=1e-3)
    assert history["val_rmse"].iloc[-1] < history["val_rmse"].iloc[0]
    answers = job.answers()
    np.testing.assert_allclose(answers[:, :3].sum(axis=1), 1, atol=1e-6)
    truth = job.packed.fractions
    assert truth is not None
    of_val = answers[job.packed.rows["image"]][job.split == "val"] - truth[job.split == "val"]
    assert np.sqrt((of_val**2).mean()) == pytest.approx(history["val_rmse"].iloc[-1], rel=1e-3)


def small_model(n_classes: int = 3) -> keras.Model:
    image = keras.Input((16, 16, 3), dtype="uint8", name="image")
    pixels = keras.layers.Rescaling(1 / 255, name="unit")(image)
    hidden = keras.layers.Dense(4, name="hidden")(keras.layers.Flatten(name="flat")(pixels))
    return keras.Model(image, keras.layers.Dense(n_classes, activation="softmax", name="probabilities")(hidden))


def test_phases_go_on_with_each_others_weights_and_the_last_one_keeps_its_best() -> None:
    def only_last(tail: keras.Model) -> None:
        tail.get_layer("hidden").trainable = False
        before.append(tail.get_layer("hidden").get_weights())

    def all_of_it(tail: keras.Model) -> None:
        before.append(tail.get_layer("hidden").get_weights())
        tail.get_layer("hidden").trainable = True

    before: list[list[np.ndarray]] = []
    last = replace(RECIPE, epochs=5, keep="best", label_smoothing=0.0)
    phases = [Phase(replace(last, epochs=2), only_last), Phase(last, all_of_it)]
    model = small_model()
    data = examples()  # labels are random: every epoch of learning makes validation worse
    history = fit(model, data, *phases)
    assert list(history["epoch"]) == list(range(1, 8))
    for frozen, later in zip(*before, strict=True):
        np.testing.assert_array_equal(frozen, later)
    assert not np.array_equal(before[1][0], model.get_layer("hidden").get_weights()[0])
    rows = data.rows("val")
    probabilities = model.predict(data.inputs[data.image[rows]], verbose=0)
    kept = -np.log((probabilities * data.targets[rows]).sum(axis=1)).mean()
    assert kept == pytest.approx(history["val_loss"].iloc[2:].min(), rel=1e-4)


def test_without_val_rows_the_last_weights_stay_and_nothing_else_can() -> None:
    data = examples()
    data = replace(data, split=np.where(data.split == "val", "test", data.split))
    history = fit(small_model(), data, Phase(replace(RECIPE, epochs=2)))
    assert history["val_loss"].isna().all()
    assert history["loss"].notna().all()
    for change in ({"keep": "best"}, {"patience": 2}):
        with pytest.raises(DataError, match="split val: holds no rows"):
            fit(small_model(), data, Phase(replace(RECIPE, **change)))
    with pytest.raises(DataError, match="split train: holds no rows"):
        fit(small_model(), replace(data, split=np.full(37, "test")), Phase(RECIPE))


def test_a_fit_that_diverges_stops_with_a_line() -> None:
    recipe, data = replace(RECIPE, optimizer="sgd", learning_rate=1000.0), examples()
    bright = replace(data, inputs=1e30 * data.inputs.astype(np.float32))
    with pytest.raises(ConfigError, match=r"epoch \d+: .*; lower learning_rate"):
        fit(small_model(), bright, Phase(recipe))


def test_heads_and_networks_are_fitted_alike_and_tell_each_epoch() -> None:
    seen: list[int] = []
    watch = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: seen.append(epoch))
    history = fit_head(separable(), callbacks=[watch])
    assert seen == list(range(HEAD.epochs))
    assert tuple(history.columns) == HISTORY_COLUMNS
    assert list(history["epoch"]) == list(range(1, HEAD.epochs + 1))
    assert history["val_accuracy"].iloc[-1] > 0.95
    assert history["loss"].iloc[-1] < history["loss"].iloc[0]


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "adamax", "sgd"])
def test_every_optimizer_fits(optimizer: Any) -> None:
    head = build_head(5, softmax_answer(3), (16,), "relu", dropout=0.1)
    history = fit(head, separable(), Phase(replace(HEAD, optimizer=optimizer, epochs=2)))
    assert portable(head).output_shape == (None, 3), "Keras copies the optimizer as well"
    assert history["loss"].iloc[1] < history["loss"].iloc[0]


def test_patience_ends_a_fit() -> None:
    data = separable()
    labels = np.eye(3, dtype=np.float32)[np.random.default_rng(1).integers(0, 3, 120)]
    recipe = replace(HEAD, learning_rate=0.1, epochs=30, patience=2)
    history = fit_head(replace(data, targets=labels), recipe)
    assert history["val_loss"].idxmin() == len(history) - 3
    assert len(history) < 30


def test_the_kept_epoch_is_that_of_the_figure_that_is_monitored(tmp_path: Path) -> None:
    job = job_of(tmp_path, replace(RECIPE, epochs=3, keep="best"))
    figures = {"epoch": [1, 2, 3], "val_loss": [0.3, 0.2, 0.4], "val_accuracy": [0.9, 0.5, 0.6]}
    history = pd.DataFrame(figures)
    assert job.kept_epoch(history) == 2
    assert replace(job, recipe=replace(job.recipe, monitor="val_accuracy")).kept_epoch(history) == 1


def test_patience_may_watch_the_accuracy() -> None:
    data = separable()
    labels = np.eye(3, dtype=np.float32)[np.random.default_rng(1).integers(0, 3, 120)]
    recipe = replace(HEAD, learning_rate=0.1, epochs=30, patience=2, monitor="val_accuracy")
    history = fit_head(replace(data, targets=labels), recipe)
    assert history["val_accuracy"].idxmax() == len(history) - 3
    assert history["val_loss"].idxmin() != len(history) - 3, "or this test says nothing"


@pytest.mark.parametrize("activation", ["tanh", "relu"])  # ReLU hides the NaN of a weight from the loss
def test_weights_that_are_no_numbers_stop_with_a_line(activation: str) -> None:
    head = build_head(5, softmax_answer(3), (16,), activation)
    head.get_layer("hidden_1").kernel.assign(np.full((5, 16), np.nan, np.float32))
    with pytest.raises(ConfigError, match=r"epoch 1: (hidden_1/kernel is not finite|loss is nan); lower learning_rate"):
        fit(head, separable(), Phase(HEAD))


def test_an_input_that_is_no_number_is_named() -> None:
    data = separable()
    data.inputs[7] = np.nan
    with pytest.raises(DataError, match="image 7: is not finite; look for NaN pixels"):
        fit_head(data)


def test_the_learner_names_a_mirror_image_by_its_partner(tmp_path: Path) -> None:
    job = job_of(tmp_path, replace(RECIPE, augment=AugmentParams(flip=True, rotation_deg=20.0)), mirrored=True)
    learner, _ = job.prepared()
    images = job.packed.images[:20]
    answers = np.asarray(learner(images, training=True))
    pixels, mirrored = RandomView(asdict(job.recipe.augment), job.recipe.seed, 1.0)(job.front(images), training=True)
    of_view = np.asarray(job.tail(pixels, training=True))
    flags = np.asarray(mirrored).astype(bool)
    assert 0 < flags.sum() < 20
    np.testing.assert_allclose(answers, np.where(flags[:, None], of_view[:, ::-1], of_view), atol=1e-5)
    np.testing.assert_allclose(learner.predict(images, verbose=0), job.whole.predict(images, verbose=0), atol=1e-6)


def test_without_pairs_a_mirror_image_needs_no_turning_back(tmp_path: Path) -> None:
    for mirrored in (False, True):
        job = job_of(tmp_path / str(mirrored), replace(RECIPE, augment=AugmentParams(flip=True)), mirrored=mirrored)
        names = [layer.name for layer in job.prepared()[0].layers]
        assert "view" in names
        assert ("mirror_back" in names) == mirrored


def test_images_that_must_not_be_changed_are_refused(tmp_path: Path) -> None:
    job = job_of(tmp_path)
    digits = replace(job.packed, card=replace(job.packed.card, refused=("mirror", "turn")))
    mirror, turn = AugmentParams(flip=True), AugmentParams(rotation_deg=45.0)
    for recipe in (replace(RECIPE, augment=mirror), replace(RECIPE, augment=turn), replace(RECIPE, test_views=4)):
        with pytest.raises(ConfigError, match=r"a run of toy: .* no longer show what their labels say; set"):
            make_job("digits", recipe, digits, job.split, weights=tmp_path)
    recipe = replace(RECIPE, augment=AugmentParams(rotation_deg=15.0, shift=0.1))
    make_job("digits", recipe, digits, job.split, weights=tmp_path)


class Sizes(keras.layers.Layer):
    """Note how many images come at a time."""

    def call(self, inputs: Any) -> Any:
        self.seen = [*getattr(self, "seen", []), inputs.shape[0]]
        return inputs


def test_views_of_all_images_of_a_step_are_no_more_than_a_batch(tmp_path: Path) -> None:
    job = job_of(tmp_path, replace(RECIPE, test_views=8, batch_size=20), n_rows=16)
    sizes = Sizes(name="sizes")
    job = replace(job, tail=keras.Model(job.tail.inputs[0], sizes(job.tail.outputs[0]), name="tail"))
    job.whole.run_eagerly = True
    assert job.answers().shape == (16, 2)
    assert {size for size in sizes.seen if size} == {16}  # 2 images, 8 views of each


def test_mixed_precision_learns_in_16_bits_and_keeps_32(tmp_path: Path) -> None:
    job = job_of(tmp_path, replace(RECIPE, precision="mixed", epochs=1, augment=AugmentParams(flip=True)), n_rows=16)
    before = [weight.copy() for weight in job.tail.get_weights()]
    dtypes: dict[str, str] = {}

    def look(model: keras.Model) -> None:
        dtypes["view"] = model.get_layer("view").compute_dtype
        dtypes.update({layer.name: layer.compute_dtype for layer in model.get_layer("cnn_small").layers})

    watch = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: look(watch.model))
    history = job.fit([watch])
    assert np.isfinite(history["loss"]).all()
    assert keras.config.dtype_policy().name == "float32"
    assert {layer.compute_dtype for layer in job.tail.layers} == {"float32"}
    assert any(not np.array_equal(old, new) for old, new in zip(before, job.tail.get_weights(), strict=True))
    assert dtypes["conv_1"] in ("bfloat16", "float16")
    assert dtypes["probabilities"] == dtypes["view"] == "float32"


def test_one_cycle_rises_and_falls() -> None:
    rate = make_rate(replace(RECIPE, schedule="one_cycle", learning_rate=1.0), n_steps=100)
    values = [float(rate(step)) for step in range(100)]
    assert values[0] == pytest.approx(0.04)
    assert np.argmax(values) == 30
    assert max(values) == pytest.approx(1)
    assert values[-1] < 0.01
    assert np.all(np.diff(values[:31]) > 0)
    assert np.all(np.diff(values[30:]) < 0)
    again = keras.optimizers.schedules.deserialize(keras.optimizers.schedules.serialize(rate))
    assert float(again(17)) == pytest.approx(values[17])
    assert float(make_rate(replace(RECIPE, schedule="one_cycle"), n_steps=1)(0)) == pytest.approx(3e-3)


def test_a_step_is_traced_once() -> None:
    traced = []

    class Traced(keras.Model):
        def train_step(self, data: Any) -> Any:
            traced.append(data)
            return super().train_step(data)

    head = build_head(5, softmax_answer(3), (16,), "relu")
    fit(Traced(head.inputs, head.outputs), separable(), Phase(replace(HEAD, epochs=2)))
    assert len(traced) == 1, "80 rows in ten equal steps"


def test_a_schedule_is_asked_once_for_all_weights() -> None:
    asked = []

    class Asked(keras.optimizers.schedules.CosineDecay):
        def __call__(self, step: Any) -> Any:
            asked.append(step)
            return super().__call__(step)

    rate = {"initial_learning_rate": 0.1, "decay_steps": 3}
    optimizer = OneRateAdamW(Asked(**rate))
    plain = keras.optimizers.AdamW(keras.optimizers.schedules.CosineDecay(**rate))
    ours, others = ([keras.Variable(np.full(4, n + 1.0, np.float32)) for n in range(9)] for _ in range(2))
    for step in range(3):
        asked.clear()
        gradients = [keras.ops.full((4,), step + 1.0)] * 9
        optimizer.apply(gradients, ours)
        assert len(asked) == 1
        plain.apply(gradients, others)
        assert float(optimizer.learning_rate) == float(plain.learning_rate)
    for one, other in zip(ours, others, strict=True):
        np.testing.assert_array_equal(one.numpy(), other.numpy())


def test_epochs_of_one_step_have_a_history(tmp_path: Path) -> None:
    history = job_of(tmp_path, replace(RECIPE, batch_size=64, epochs=2)).fit([])
    assert list(history["epoch"]) == [1, 2]


def test_quarter_turns_of_oblong_images_are_refused_before_training(tmp_path: Path) -> None:
    job = job_of(tmp_path)
    oblong = replace(job.packed, images=job.packed.images[:, :-2])
    with pytest.raises(DataError, match=r"test_views: images are \d+ x \d+ px; pack square"):
        make_job("toy_job", replace(RECIPE, test_views=4), oblong, job.split, weights=tmp_path)


@pytest.mark.parametrize(
    "waits", [(0, 0, 0, 0), (100, 0, 0, 0), (0, 50, 0, 0), (0, 0, 20, 0), (0, 0, 0, 3), (7, 8, 9, 1)]
)
def test_waiting_counts_what_passes_before_in_between_and_behind_the_steps(
    waits: tuple[int, int, int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    before_s, late_s, behind_s, between_s = waits
    clock = [0.0]
    for module in (batches_module, input_wait):
        monkeypatch.setattr(module, "time", SimpleNamespace(perf_counter=lambda: clock[0]))
    batches = TrainBatches(examples(), RECIPE)
    watch, logs = InputWait(batches), dict[str, float]()
    for epoch in range(2):
        watch.on_epoch_begin(epoch)
        clock[0] += before_s
        for step in range(3):
            watch.on_train_batch_begin(step)
            batches.ready_s[step] = clock[0] + (late_s if step == 1 else -1)
            clock[0] += (late_s if step == 1 else 0) + 10 + 1000 * (epoch == 0 and step == 0)
            watch.on_train_batch_end(step)
            clock[0] += between_s
        clock[0] += behind_s
        watch.on_test_begin()
        clock[0] += 500
        watch.on_epoch_end(epoch, logs)
        waited_s = before_s * epoch + late_s + 3 * between_s + behind_s
        busy_s = 10 * (2 + epoch)  # the first step of all compiles
        assert logs["input_wait_share"] == pytest.approx(waited_s / (waited_s + busy_s))


def test_an_epoch_of_the_compiling_step_alone_says_nothing_of_waiting() -> None:
    watch, logs = InputWait(TrainBatches(examples(), RECIPE)), dict[str, float]()
    watch.on_epoch_begin(0)
    watch.on_train_batch_begin(0)
    watch.on_train_batch_end(0)
    watch.on_epoch_end(0, logs)
    assert logs["input_wait_share"] == 0


def test_plain_losses_do_without_val() -> None:
    logs = {"loss": 2.0, "plain_loss": 1.0}
    PlainLosses().on_epoch_end(0, logs)
    assert logs == {"objective": 2.0, "loss": 1.0}


def test_batches_that_are_read_ahead_give_the_same_bits_and_never_fill_the_memory() -> None:
    model = keras.Sequential([keras.Input((6, 6, 3)), keras.layers.Conv2D(4, 3), keras.layers.Flatten()])
    images = np.random.default_rng(0).integers(0, 256, (37, 6, 6, 3), dtype=np.uint8)
    by_hand = [model.predict_on_batch(images[start : start + 8]) for start in range(0, 32, 8)]
    filled = np.concatenate([images[32:], np.repeat(images[-1:], 3, axis=0)])
    by_hand.append(model.predict_on_batch(filled)[:5])
    np.testing.assert_array_equal(predict_batches(model, images, 8), np.concatenate(by_hand))
    ahead = Ahead(images)
    counted = keras.Model(model.inputs[0], Counting(ahead)(model.outputs[0]))
    counted.compile(run_eagerly=True)
    predict_batches(counted, ahead, 2)
    assert len(ahead.waiting) == 19
    assert max(ahead.waiting) <= 2  # the one that is looked at, and the next


class Ahead:
    """Images of which it is known how many batches were read and not answered yet."""

    def __init__(self, images: np.ndarray, bad: int | None = None) -> None:
        self.images, self.bad, self.waiting, self.n_answered = images, bad, list[int](), 0

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, rows: slice) -> np.ndarray:
        if rows.start == self.bad:
            raise OSError("the disk is gone")
        self.waiting.append(len(self.waiting) + 1 - self.n_answered)
        return self.images[rows]


class Counting(keras.layers.Layer):
    """Counts the batches that were answered."""

    def __init__(self, images: Ahead) -> None:
        super().__init__()
        self.images = images

    def call(self, inputs: Any) -> Any:
        self.images.n_answered += int(inputs.shape[0] is not None)
        return inputs


def test_a_batch_that_cannot_be_read_ends_it_with_its_own_error() -> None:
    model = keras.Sequential([keras.Input((4, 4, 1)), keras.layers.Flatten()])
    with pytest.raises(OSError, match="the disk is gone"):
        predict_batches(model, Ahead(np.zeros((30, 4, 4, 1), np.float32), bad=12), 4)


def test_chosen_images_are_predicted_in_their_order() -> None:
    model = keras.Sequential([keras.Input((4, 4, 1)), keras.layers.Flatten()])
    images = np.random.default_rng(0).normal(size=(23, 4, 4, 1)).astype(np.float32)
    chosen = np.array([20, 3, 3, 7, 0])
    predicted = predict_batches(model, images, 2, chosen=chosen)
    np.testing.assert_array_equal(predicted, images[chosen].reshape(5, 16))
