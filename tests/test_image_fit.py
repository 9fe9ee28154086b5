"""Fitting on packed images: batches, blending, weights, phases, mixed precision."""

from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import keras
import numpy as np
import pytest

from deepsky.datasets.packed import open_packed
from deepsky.errors import ConfigError, DataError
from deepsky.networks.augment import AugmentParams, RandomView
from deepsky.stages.from_scratch import make_job
from deepsky.training import image_batches
from deepsky.training.features import predict_batches
from deepsky.training.fit import HISTORY_COLUMNS, PlainLosses, make_optimizer, make_rate
from deepsky.training.image_batches import ImageBatches, ImageExamples, InputWait, TrainBatches, balance, blend
from deepsky.training.image_fit import FRACTION_COLUMNS, Phase, compile_learner, fit_images
from deepsky.training.image_job import ImageJob
from deepsky.training.job import read_split
from deepsky.training.recipes import FromScratchParams
from tests.toy_galaxies import write_galaxies

PARAMS = FromScratchParams(
    seed=1, label_smoothing=0.1, optimizer="adam", learning_rate=3e-3, schedule="constant", weight_decay=0.0,
    momentum=0.9, batch_size=8, epochs=6, patience=None, keep="last", dataset="toy", network="cnn_small",
    input_size_px=16, augment=AugmentParams(), test_views=1, class_weights="none", mixup=0.0, precision="float32",
    answer="softmax",
)  # fmt: skip


def examples(n_rows: int = 37) -> ImageExamples:
    rng = np.random.default_rng(0)
    label = rng.integers(0, 3, n_rows)
    images = rng.integers(0, 256, (n_rows, 16, 16, 3), dtype=np.uint8)
    split = np.array(["train"] * (n_rows - 8) + ["val"] * 8)
    return ImageExamples(images, np.arange(n_rows)[::-1].copy(), np.eye(3, dtype=np.float32)[label], split)


def job_of(folder: Path, params: FromScratchParams = PARAMS, **options: Any) -> ImageJob:
    galaxies = write_galaxies(folder, **options)
    packed = open_packed(galaxies / "packed")
    return make_job("toy_job", params, {}, packed, read_split(galaxies / "split.csv", packed))


def check_order_of_rows() -> None:
    """Compare a fit with the same steps one by one, under any backend."""
    data, params = examples(61), replace(PARAMS, epochs=3, label_smoothing=0.0)
    (model, tail), (again, _) = small_model(), small_model()
    again.set_weights(model.get_weights())
    fit_images(model, tail, data, [Phase(params)])
    batches = TrainBatches(data, params)
    assert len(batches) == 7
    compile_learner(again, params, make_optimizer(params, n_steps=3 * len(batches)))
    for _ in range(params.epochs):
        batches.on_epoch_end()  # Keras also does before the first epoch
        for step in steps_of(batches):
            again.train_on_batch(*step)
    for one, other in zip(model.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


def steps_of(batches: ImageBatches) -> list[tuple[np.ndarray, ...]]:
    return [batches[step] for step in range(len(batches))]


def test_an_epoch_shows_each_train_row_once_in_an_order_of_its_own() -> None:
    data = examples()
    batches, again = TrainBatches(data, PARAMS), TrainBatches(data, PARAMS, first_epoch=1)
    first = steps_of(batches)
    assert [len(images) for images, _ in first] == [8, 8, 8, 5]
    batches.on_epoch_end()
    second = steps_of(batches)
    for epoch in (first, second):
        shown = np.concatenate([images for images, _ in epoch])
        wanted = data.images[data.image[data.rows("train")]]
        assert sorted(map(bytes, shown)) == sorted(map(bytes, wanted))
    assert not np.array_equal(first[0][0], second[0][0])
    for step, other in zip(second, steps_of(again), strict=True):  # an epoch is the same wherever a fit begins
        np.testing.assert_array_equal(step[0], other[0])
        np.testing.assert_array_equal(step[1], other[1])
    watched = steps_of(ImageBatches(data, "val", 3))
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
    data, params = examples(), replace(PARAMS, mixup=0.5)
    for one, other in zip(steps_of(TrainBatches(data, params)), steps_of(TrainBatches(data, params)), strict=True):
        np.testing.assert_array_equal(one[0], other[0])
        assert one[1].max(axis=1).min() < 1


def test_balanced_weights_give_every_class_the_same_sum() -> None:
    targets = np.eye(3, dtype=np.float32)[[0] * 6 + [1] * 3 + [2]]
    weights = targets @ balance(targets)
    np.testing.assert_allclose([weights[:6].sum(), weights[6:9].sum(), weights[9]], 10 / 3, rtol=1e-6)
    assert weights.mean() == pytest.approx(1)
    steps = steps_of(TrainBatches(examples(), replace(PARAMS, class_weights="balanced")))
    assert np.concatenate([weight for _, _, weight in steps]).mean() == pytest.approx(1)


def test_it_learns_and_tells_each_epoch(tmp_path: Path) -> None:
    params = replace(PARAMS, mixup=0.1, class_weights="balanced", schedule="one_cycle", learning_rate=1e-2, epochs=10)
    job = job_of(tmp_path, params)
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
    params = replace(PARAMS, label_smoothing=0.0, answer="tree", mixup=0.2)
    job = job_of(tmp_path, params, fractions=True)
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


def small_model(n_classes: int = 3) -> tuple[keras.Model, keras.Model]:
    image = keras.Input((16, 16, 3), dtype="uint8", name="image")
    pixels = keras.layers.Rescaling(1 / 255, name="unit")(image)
    hidden = keras.layers.Dense(4, name="hidden")(keras.layers.Flatten(name="flat")(pixels))
    tail = keras.Model(image, keras.layers.Dense(n_classes, activation="softmax", name="probabilities")(hidden))
    return tail, tail


def test_phases_go_on_with_each_others_weights_and_the_last_one_keeps_its_best() -> None:
    def only_last(tail: keras.Model) -> None:
        tail.get_layer("hidden").trainable = False
        before.append(tail.get_layer("hidden").get_weights())

    def all_of_it(tail: keras.Model) -> None:
        before.append(tail.get_layer("hidden").get_weights())
        tail.get_layer("hidden").trainable = True

    before: list[list[np.ndarray]] = []
    last = replace(PARAMS, epochs=5, keep="best", label_smoothing=0.0)
    phases = [Phase(replace(last, epochs=2), only_last), Phase(last, all_of_it)]
    model, tail = small_model()
    data = examples()  # labels are random: every epoch of learning makes validation worse
    history = fit_images(model, tail, data, phases)
    assert list(history["epoch"]) == list(range(1, 8))
    for frozen, later in zip(*before, strict=True):
        np.testing.assert_array_equal(frozen, later)
    assert not np.array_equal(before[1][0], tail.get_layer("hidden").get_weights()[0])
    rows = data.rows("val")
    probabilities = model.predict(data.images[data.image[rows]], verbose=0)
    kept = -np.log((probabilities * data.targets[rows]).sum(axis=1)).mean()
    assert kept == pytest.approx(history["val_loss"].iloc[2:].min(), rel=1e-4)


def test_without_val_rows_the_last_weights_stay_and_nothing_else_can() -> None:
    data = examples()
    data = replace(data, split=np.where(data.split == "val", "test", data.split))
    history = fit_images(*small_model(), data, [Phase(replace(PARAMS, epochs=2))])
    assert history["val_loss"].isna().all()
    assert history["loss"].notna().all()
    for change in ({"keep": "best"}, {"patience": 2}):
        with pytest.raises(DataError, match="split val: holds no rows"):
            fit_images(*small_model(), data, [Phase(replace(PARAMS, **change))])
    with pytest.raises(DataError, match="split train: holds no rows"):
        fit_images(*small_model(), replace(data, split=np.full(37, "test")), [Phase(PARAMS)])


def test_a_fit_that_diverges_stops_with_a_line() -> None:
    params = replace(PARAMS, optimizer="sgd", learning_rate=1e30)
    with pytest.raises(ConfigError, match=r"epoch \d: .*lower learning_rate"):
        fit_images(*small_model(), examples(), [Phase(params)])


def test_the_learner_names_a_mirror_image_by_its_partner(tmp_path: Path) -> None:
    job = job_of(tmp_path, replace(PARAMS, augment=AugmentParams(flip=True, rotation_deg=20.0)), mirrored=True)
    learner = job.learner(job.tail)
    images = job.packed.images[:20]
    answers = np.asarray(learner(images, training=True))
    pixels, mirrored = RandomView(asdict(job.params.augment), job.params.seed, 1.0)(job.front(images), training=True)
    of_view = np.asarray(job.tail(pixels, training=True))
    flags = np.asarray(mirrored).astype(bool)
    assert 0 < flags.sum() < 20
    np.testing.assert_allclose(answers, np.where(flags[:, None], of_view[:, ::-1], of_view), atol=1e-5)
    np.testing.assert_allclose(learner.predict(images, verbose=0), job.whole().predict(images, verbose=0), atol=1e-6)


def test_without_pairs_a_mirror_image_needs_no_turning_back(tmp_path: Path) -> None:
    for mirrored in (False, True):
        job = job_of(tmp_path / str(mirrored), replace(PARAMS, augment=AugmentParams(flip=True)), mirrored=mirrored)
        names = [layer.name for layer in job.learner(job.tail).layers]
        assert "view" in names
        assert ("mirror_back" in names) == mirrored


def test_images_that_must_not_be_changed_are_refused(tmp_path: Path) -> None:
    job = job_of(tmp_path)
    digits = replace(job.packed, card=replace(job.packed.card, refused=("mirror", "turn")))
    mirror, turn = AugmentParams(flip=True), AugmentParams(rotation_deg=45.0)
    for params in (replace(PARAMS, augment=mirror), replace(PARAMS, augment=turn), replace(PARAMS, test_views=4)):
        with pytest.raises(ConfigError, match=r"recipe of toy: .* no longer show what their labels say; set"):
            make_job("digits", params, {}, digits, job.split)
    make_job("digits", replace(PARAMS, augment=AugmentParams(rotation_deg=15.0, shift=0.1)), {}, digits, job.split)


class Sizes(keras.layers.Layer):
    """Note how many images come at a time."""

    def call(self, inputs: Any) -> Any:
        self.seen = [*getattr(self, "seen", []), inputs.shape[0]]
        return inputs


def test_views_of_all_images_of_a_step_are_no_more_than_a_batch(tmp_path: Path) -> None:
    job = job_of(tmp_path, replace(PARAMS, test_views=8, batch_size=20), n_rows=16)
    sizes = Sizes(name="sizes")
    job = replace(job, tail=keras.Model(job.tail.inputs[0], sizes(job.tail.outputs[0]), name="tail"))
    whole = job.whole()
    whole.run_eagerly = True
    assert job.answers().shape == (16, 2)
    assert {size for size in sizes.seen if size} == {16}  # 2 images, 8 views of each


def test_mixed_precision_learns_in_16_bits_and_keeps_32(tmp_path: Path) -> None:
    job = job_of(tmp_path, replace(PARAMS, precision="mixed", epochs=1, augment=AugmentParams(flip=True)), n_rows=16)
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
    rate = make_rate(replace(PARAMS, schedule="one_cycle", learning_rate=1.0), n_steps=100)
    values = [float(rate(step)) for step in range(100)]
    assert values[0] == pytest.approx(0.04)
    assert np.argmax(values) == 30
    assert max(values) == pytest.approx(1)
    assert values[-1] < 0.01
    assert np.all(np.diff(values[:31]) > 0)
    assert np.all(np.diff(values[30:]) < 0)
    again = keras.optimizers.schedules.deserialize(keras.optimizers.schedules.serialize(rate))
    assert float(again(17)) == pytest.approx(values[17])
    assert float(make_rate(replace(PARAMS, schedule="one_cycle"), n_steps=1)(0)) == pytest.approx(3e-3)


def test_epochs_of_one_step_have_a_history(tmp_path: Path) -> None:
    history = job_of(tmp_path, replace(PARAMS, batch_size=64, epochs=2)).fit([])
    assert list(history["epoch"]) == [1, 2]


def test_quarter_turns_of_oblong_images_are_refused_before_training(tmp_path: Path) -> None:
    job = job_of(tmp_path)
    oblong = replace(job.packed, images=job.packed.images[:, :-2])
    with pytest.raises(DataError, match=r"test_views: images are \d+ x \d+ px; pack square"):
        make_job("toy_job", replace(PARAMS, test_views=4), {}, oblong, job.split)


@pytest.mark.parametrize(
    "waits", [(0, 0, 0, 0), (100, 0, 0, 0), (0, 50, 0, 0), (0, 0, 20, 0), (0, 0, 0, 3), (7, 8, 9, 1)]
)
def test_waiting_counts_what_passes_before_in_between_and_behind_the_steps(
    waits: tuple[int, int, int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    before_s, late_s, behind_s, between_s = waits
    clock = [0.0]
    monkeypatch.setattr(image_batches, "time", SimpleNamespace(perf_counter=lambda: clock[0]))
    batches = TrainBatches(examples(), PARAMS)
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
    watch, logs = InputWait(TrainBatches(examples(), PARAMS)), dict[str, float]()
    watch.on_epoch_begin(0)
    watch.on_train_batch_begin(0)
    watch.on_train_batch_end(0)
    watch.on_epoch_end(0, logs)
    assert logs["input_wait_share"] == 0


def test_plain_losses_do_without_val() -> None:
    logs = {"loss": 2.0, "plain_loss": 1.0}
    PlainLosses().on_epoch_end(0, logs)
    assert logs == {"objective": 2.0, "loss": 1.0}


def test_chosen_images_are_predicted_in_their_order() -> None:
    model = keras.Sequential([keras.Input((4, 4, 1)), keras.layers.Flatten()])
    images = np.random.default_rng(0).normal(size=(23, 4, 4, 1)).astype(np.float32)
    chosen = np.array([20, 3, 3, 7, 0])
    predicted = predict_batches(model, images, 2, chosen=chosen)
    np.testing.assert_array_equal(predicted, images[chosen].reshape(5, 16))
