"""Classical baselines learn by train rows, choose by val, score on test, and once for heads on the same features."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mlflow.tracking import MlflowClient
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from deepsky.config import build
from deepsky.datasets.packed import DatasetCard, write_rows
from deepsky.errors import ConfigError, DataError
from deepsky.evaluation.baselines import CANDIDATES, score_baselines
from deepsky.evaluation.params import EvaluateParams
from deepsky.evaluation.planned import Places
from deepsky.report.results import read_results
from deepsky.stages import evaluate, report
from deepsky.tracking.runs import find_run
from deepsky.tracking.store import tracking_uri
from deepsky.tracking.trained_files import run_key
from tests.trained_folders import CLASSES, make_project, planned, write_trained

ALL = tuple(CANDIDATES)
TRAINED, OUT, FEATURES = Path("models/trained"), Path("evaluation/runs"), Path("data/features")
SEEN = "sdss_jpg/mobilenet/128px"
EPOCHS_10, EPOCHS_50 = "sdss_jpg/mobilenet", "sdss_jpg/longer"


def table(n_rows: int = 240, noise: float = 0.5) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features of three classes, two of which differ along a feature of small numbers, and one that never varies."""
    rng = np.random.default_rng(0)
    label = rng.integers(0, 3, n_rows)
    features = rng.normal(size=(n_rows, 12)) * noise
    features[:, :3] += np.eye(3)[label]
    features[:, 2] *= 1e-4
    features[:, 5] = 1.0
    split = np.array(["train", "val", "test"])[np.arange(n_rows) % 6 // 2]
    return features.astype(np.float32), np.array(CLASSES)[label], split


def test_each_method_learns_what_can_be_learned_and_nothing_from_noise() -> None:
    features, labels, split = table(noise=0.15)
    scores = score_baselines(ALL, features, labels, split, np.arange(len(split)).astype(str), seed=1)
    assert list(scores) == list(ALL)
    for one in scores.values():
        assert one.accuracy > 0.9
        assert one.accuracy_low < one.accuracy
        assert one.f1_macro == pytest.approx(one.accuracy, abs=0.05)
    by_chance = score_baselines(
        ALL,
        np.random.default_rng(3).normal(size=features.shape),
        labels,
        split,
        np.arange(len(split)).astype(str),
        seed=1,
    )
    assert max(one.accuracy_low for one in by_chance.values()) < 1 / 3 + 0.05
    assert score_baselines(ALL, features, labels, split, np.arange(len(split)).astype(str), seed=1) == scores


def test_val_rows_choose_and_test_rows_only_score() -> None:
    features, labels, split = table()
    train, val, test = (split == name for name in ("train", "val", "test"))
    scaler = StandardScaler().fit(features[train])
    right = {}
    for strength in (1e-4, 1e-3, 1e-2, 1e-1, 1.0):
        method = LogisticRegression(C=strength, max_iter=1000).fit(scaler.transform(features[train]), labels[train])
        right[strength] = [method.score(scaler.transform(features[part]), labels[part]) for part in (val, test)]
    assert len({one for one, _ in right.values()}) > 1
    best = max(right.values(), key=lambda one: one[0])
    found = score_baselines(
        ["logistic_regression"], features, labels, split, np.arange(len(split)).astype(str), seed=1
    )["logistic_regression"]
    assert found.accuracy == best[1]
    # Where val rows are what is scored, or there are none, nothing is chosen.
    on_val = split.copy()
    on_val[test] = "train"
    assert (
        score_baselines(ALL, features, labels, on_val, np.arange(len(split)).astype(str), seed=1)["svm"].accuracy > 0.5
    )
    no_val = score_baselines(["logistic_regression"], features[~val], labels[~val], split[~val], split[~val], seed=1)
    assert no_val["logistic_regression"].accuracy == right[1e-2][1]


def test_what_cannot_be_fitted_is_one_line() -> None:
    features, labels, split = table()
    with pytest.raises(DataError, match=r"need train rows of two classes, .*; give more objects, or set evaluate"):
        score_baselines(ALL, features, np.full(len(labels), "STAR"), split, split, seed=1)
    with pytest.raises(ConfigError, match="baselines svm, svm names one twice"):
        build({"baselines": ["svm", "svm"]}, EvaluateParams, "evaluate")
    with pytest.raises(ConfigError, match="'knn' is unknown; choose one of: logistic_regression, svm, random_forest"):
        build({"baselines": ["knn"]}, EvaluateParams, "evaluate")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two trainings of a head on the same features, 10 and 50 epochs, and a network that learned from the images."""
    folder = make_project(tmp_path, monkeypatch)
    predictions = write_trained(TRAINED / EPOCHS_10)
    write_trained(TRAINED / EPOCHS_50)
    write_trained(TRAINED / "sdss_jpg/cnn_small", weights="scratch")
    rows = predictions[["id", "label"]].assign(image=np.arange(100)[::-1])
    packed = Path("data/packed/sdss_jpg")
    packed.mkdir(parents=True, exist_ok=True)
    np.save(packed / "images.npy", np.zeros((100, 2, 2, 3), np.uint8))
    write_rows(packed, rows, DatasetCard("uint8", ("r", "g", "b"), (), CLASSES, None, 0), [])
    label = predictions["label"].map(CLASSES.index).to_numpy()[::-1]
    seen = np.random.default_rng(1).normal(size=(1, 100, 8)).astype(np.float32) + 3 * np.eye(8)[label]
    (FEATURES / SEEN).mkdir(parents=True)
    np.save(FEATURES / SEEN / "sides.npy", seen.astype(np.float32))
    (FEATURES / SEEN / "key.txt").write_text("1")
    return folder


def run_evaluate(*baselines: Any) -> dict[str, Any]:
    runs = planned(TRAINED, EPOCHS_10, EPOCHS_50, "sdss_jpg/cnn_small")
    runs = [type(one)(**vars(one) | {"features": SEEN if one.label != "cnn_small" else None}) for one in runs]
    folders = {name: Path("evaluation", name) for name in ("metrics", "plots")}
    places = Places(packed=Path("data/packed"), features=FEATURES, trained=TRAINED, out=OUT)
    evaluate.run(runs, EvaluateParams(baselines=baselines), "sky", places, **folders)
    summary: dict[str, Any] = json.loads((OUT / "summary.json").read_text())["runs"]
    return summary


def set_kept(**figures: float) -> None:
    """Change figures that were found before, and nothing of what they follow from."""
    kept = json.loads((OUT / "baselines.json").read_text())
    for entry in kept.values():
        entry["figures"] |= figures
    (OUT / "baselines.json").write_text(json.dumps(kept))


def test_heads_on_the_same_features_share_their_baselines(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    summary = run_evaluate("svm", "logistic_regression")
    first, second, learned = (summary[f"sdss_jpg-{name}"] for name in ("mobilenet", "longer", "cnn_small"))
    assert first["test_svm_accuracy"] > 0.9
    assert first["test_svm_accuracy_low"] < first["test_svm_accuracy"] <= first["test_svm_accuracy_high"]
    names = [name for name in first if "svm" in name or "logistic" in name]
    assert len(names) == 8
    assert [second[name] for name in names] == [first[name] for name in names]
    assert not [name for name in learned if "svm" in name]
    # What they follow from is the same: nothing is fitted again. Other features: all is.
    set_kept(test_svm_accuracy=0.123)
    assert run_evaluate("svm", "logistic_regression")["sdss_jpg-mobilenet"]["test_svm_accuracy"] == 0.123
    (FEATURES / SEEN / "key.txt").write_text("2")
    assert run_evaluate("svm", "logistic_regression")["sdss_jpg-mobilenet"] == first
    tracked = find_run("sky", run_key(TRAINED / EPOCHS_10))
    assert tracked is not None
    metrics = MlflowClient(tracking_uri()).get_run(tracked.run_id).data.metrics
    assert {name: metrics[name] for name in names} == {name: first[name] for name in names}
    # The page sets them beside the heads.
    report.run("sky", evaluation=OUT, out=Path("reports"))
    page = Path("reports/index.html").read_text()
    section = page[page.index('<h2 id="classical">') :].partition("</section>")[0]
    assert section.index("logistic regression") < section.index("svm")
    assert section.count(f"{first['test_svm_accuracy']:.3f}") >= 2
    assert [len(one.classical) for one in read_results(OUT).runs] == [0, 2, 2]
    # Without them none of it is left.
    assert not [name for name in run_evaluate()["sdss_jpg-mobilenet"] if "svm" in name]
    assert not (OUT / "baselines.json").exists()
    assert "WARNING" not in capsys.readouterr().err


def test_a_run_without_its_features_is_evaluated_and_says_so(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    seen = FEATURES / SEEN / "sides.npy"
    content = seen.read_bytes()
    np.save(seen, np.load(seen)[:, 1:])
    assert "test_accuracy" in run_evaluate("svm")["sdss_jpg-mobilenet"]
    warning = "WARNING: sdss_jpg-longer has no classical baselines: "
    assert f"{warning}{FEATURES / SEEN}: are not features of what was trained; run dvc repro" in capsys.readouterr().err
    seen.unlink()
    run_evaluate("svm")
    assert f"{warning}{FEATURES / SEEN}: cannot be read (No such file or directory)" in capsys.readouterr().err
    seen.write_bytes(content)
    assert run_evaluate("svm")["sdss_jpg-mobilenet"]["test_svm_accuracy"] > 0.9
    assert "WARNING" not in capsys.readouterr().err
