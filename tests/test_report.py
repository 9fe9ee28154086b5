import json
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import cv2
import pandas as pd
import pytest

from deepsky.errors import DataError
from deepsky.evaluation.params import EvaluateParams
from deepsky.stages import evaluate, report
from tests.trained_folders import (
    FINE_TUNED,
    make_project,
    planned,
    write_fractions,
    write_seen,
    write_trained,
)

DATASETS, NETWORKS = ("sdss_cutouts", "sdss_jpg"), ("cnn_small", "mobilenet")
TRAINED, RUNS, OUT = Path("models/trained"), Path("evaluation/runs"), Path("reports")
SUMMARY = RUNS / "summary.json"
VOID = {"meta", "link", "br", "line", "polyline", "circle", "hr", "img"}


class Page(HTMLParser):
    """Collects what the checks ask for, and refuses unbalanced tags."""

    def __init__(self, text):
        super().__init__()
        self.ids, self.links, self.tags, self.open, self.cells, self.svg = [], [], [], [], {}, []
        self.cell = None
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.tags.append(tag)
        self.ids += [attrs["id"]] if "id" in attrs else []
        self.links += [attrs[k] for k in ("href", "src") if k in attrs]
        if tag == "svg":
            self.svg.append(attrs["aria-label"])
        if "td" in self.open and tag == "a":
            self.cell = attrs["href"]
            self.cells.setdefault(self.cell, "")
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag
        if tag == "td":
            self.cell = None

    def handle_data(self, data):
        if self.cell:
            self.cells[self.cell] += data


def _once(tmp_path_factory, prepare):
    """Run ``prepare`` in a project that the tests then copy: evaluating takes seconds, copying nothing."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        root = make_project(tmp_path_factory.mktemp("evaluated"), monkeypatch)
        prepare()
    return root


def _enter(evaluated, tmp_path, monkeypatch):
    make_project(tmp_path, monkeypatch)
    shutil.copytree(evaluated, tmp_path, dirs_exist_ok=True)
    return tmp_path


@pytest.fixture(scope="module")
def evaluated_matrix(tmp_path_factory):
    return _once(tmp_path_factory, _matrix)


@pytest.fixture
def project(evaluated_matrix, tmp_path, monkeypatch):
    return _enter(evaluated_matrix, tmp_path, monkeypatch)


def _evaluate(*names, plan=None):
    folders = {name: Path("evaluation", name) for name in ("metrics", "plots")}
    folders |= {"packed": Path("data/packed"), "features": Path("data/features"), "trained": TRAINED, "out": RUNS}
    evaluate.run(plan or planned(TRAINED, *names), EvaluateParams(), "sky", **folders)


def _write_single(name, write=write_trained, **facts):
    predictions = write(TRAINED / name, **facts)
    write_seen(TRAINED / name, predictions)
    return predictions


def _summary():
    return json.loads(SUMMARY.read_text())


def _change_summary(change):
    summary = _summary()
    change(summary)
    SUMMARY.write_text(json.dumps(summary))


def _matrix():
    for i, dataset in enumerate(DATASETS):
        for j, network in enumerate(NETWORKS):
            weights = ("scratch", "random")[j]
            write_trained(TRAINED / dataset / network, seed=2 * i + j, skill=(2.5, 0.0)[i], weights=weights)
    _evaluate(*(f"{dataset}/{network}" for dataset in DATASETS for network in NETWORKS))


def _report():
    report.run(evaluation=RUNS, out=OUT)
    return (OUT / "index.html").read_text(encoding="utf-8")


def test_numbers_on_the_page_are_those_of_the_summary(project):
    page = Page(_report())
    summary = _summary()["runs"]
    assert len(page.cells) == 4
    for dataset in DATASETS:
        for network in NETWORKS:
            text, figures = page.cells[f"#run-{dataset}-{network}"], summary[f"{dataset}-{network}"]
            for key in ("test_accuracy", "test_accuracy_low", "test_accuracy_high", "test_f1_macro"):
                assert f"{figures[key]:.3f}" in text
            assert ("weights=random" in text) == (network == "mobilenet")
            assert ("not above baseline" in text) == (figures["test_accuracy_low"] <= figures["test_baseline"])
    table = pd.read_csv(OUT / "results.csv").set_index("run")
    cell = table.loc["sdss_jpg-mobilenet"]
    assert (cell["dataset"], cell["network"], cell["learn"]) == ("sdss_jpg", "mobilenet", "head")
    assert cell["test_accuracy"] == summary["sdss_jpg-mobilenet"]["test_accuracy"]
    assert len(table) == 4


def test_everything_the_page_names_is_there_and_nothing_is_outside(project):
    text = _report()
    page = Page(text)
    for link in page.links:
        if link.startswith("#"):
            assert page.ids.count(link[1:]) == 1
        else:
            assert link == "data:," or (OUT / link).is_file()
    assert {p.name for p in OUT.iterdir()} == {"index.html", "results.csv", "results.png"}
    assert "http" not in text
    assert "script" not in page.tags
    assert str(project) not in text
    assert cv2.imread(str(OUT / "results.png")).std() > 10


def test_every_run_shows_its_curves_in_words_too(project):
    page = Page(_report())
    assert len(page.svg) == 2 * 4
    assert page.svg[0] == "accuracy over 3 epochs: training from 0.300 to 0.900; validation from 0.200 to 0.600"


def test_random_weights_are_announced_only_where_there_are_some(project):
    text = _report()
    assert "2 of 4 runs use random weights" in text
    assert "4 runs: 2 datasets × 2 networks." in text
    assert "on this page" not in text
    _change_summary(lambda summary: [summary["runs"].pop(f"{dataset}-mobilenet") for dataset in DATASETS])
    text = _report()
    assert "weights=random" not in text
    assert "2 runs: 2 datasets × 1 network." in text


@pytest.mark.parametrize(
    ("remark", "shown"),
    [
        ("collapsed: answers STAR to 98% of the objects", "collapsed"),
        ("never says QSO", "never says QSO"),
        ("never says QSO, STAR, GALAXY", "never says 3 classes"),
    ],
)
def test_answers_that_leave_classes_out_are_marked(project, remark, shown):
    assert "never says" not in "".join(Page(_report()).cells.values())
    plain = cv2.imread(str(OUT / "results.png"))
    _change_summary(lambda summary: summary["runs"]["sdss_jpg-mobilenet"].update(remark=remark))
    text = _report()
    assert f'title="{remark}">{shown}</span>' in text
    assert text.count(shown + "</span>") == 2, "in the overview, and with the run"
    assert cv2.imread(str(OUT / "results.png")).shape[0] > plain.shape[0]


def test_pictures_that_many_test_objects_share_are_counted(project):
    assert "pictures</small>" not in _report()
    _change_summary(lambda summary: [one.update(n_test_images=3) for one in summary["runs"].values()])
    assert _report().count("<small>in 3 pictures</small>") == len(DATASETS)


def test_the_runs_left_out_are_named(project):
    plan = planned(TRAINED, *(f"sdss_jpg/{network}" for network in (*NETWORKS, "vgg16")), "zoo/<b>")
    plan[0] = replace(plan[0], settings={"seed": 9})
    _evaluate(plan=plan)
    text = _report()
    Page(text)
    assert "1 of 4 runs: 1 dataset × 1 network." in text
    alert = text[text.index("1 of 4 runs are on this page") :]
    alert = alert[: alert.index("</aside>")]
    assert "Out of date: sdss_jpg-cnn_small." in alert
    assert "Not trained yet: sdss_jpg-vgg16, zoo-&lt;b&gt;." in alert


def test_custom_weights_are_named(project):
    write_trained(TRAINED / "zoo/mobilenet", weights="custom")
    _evaluate("zoo/mobilenet")
    text = _report()
    assert "weights=custom" in text
    assert "use random weights" not in text


def test_the_same_input_gives_the_same_bytes(project):
    _report()
    first = {p.name: p.read_bytes() for p in OUT.iterdir()}
    _report()
    assert first == {p.name: p.read_bytes() for p in OUT.iterdir()}


def test_names_cannot_break_the_page(tmp_path, monkeypatch):
    make_project(tmp_path, monkeypatch)
    write_trained(TRAINED / "zoo/cnn_small", classes=("<b>&", "</table><script>"), weights="scratch")
    _evaluate("zoo/cnn_small")
    page = Page(_report())
    assert "script" not in page.tags


def _change_cell(change):
    _change_summary(lambda summary: change(summary["runs"]["sdss_jpg-cnn_small"]))


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (SUMMARY.unlink, r"summary\.json: cannot be read"),
        (lambda: SUMMARY.write_text("{}"), r"summary\.json: has no 'runs'"),
        (lambda: SUMMARY.write_text('{"runs": {}, "left_out": []}'), "holds no run"),
        (lambda: SUMMARY.write_text("[]"), "is not a JSON object"),
        (lambda: _change_summary(lambda s: s["left_out"].append({})), r"summary\.json: has no 'name'"),
        (lambda: _change_cell(lambda cell: cell.pop("target")), "sdss_jpg-cnn_small: has no 'target'"),
        (lambda: _change_cell(lambda cell: cell.pop("weights")), "sdss_jpg-cnn_small: has no 'weights'"),
        (lambda: _change_cell(lambda cell: cell.update(target="mood")), "cnn_small: has an unknown target 'mood'"),
        (lambda: (RUNS / "sdss_jpg/cnn_small/metrics.json").unlink(), "cnn_small/metrics.json: cannot be read"),
        (lambda: (RUNS / "sdss_jpg/cnn_small/metrics.json").write_text("{}"), "has no 'classes'"),
    ],
)
def test_refuses_what_evaluate_did_not_write(project, spoil, words):
    spoil()
    with pytest.raises(DataError, match=words):
        _report()
    assert not OUT.exists()


# ---- tuned runs beside their references ----


@pytest.fixture(scope="module")
def evaluated_tuned(tmp_path_factory):
    return _once(tmp_path_factory, _tuned)


@pytest.fixture
def tuned(evaluated_tuned, tmp_path, monkeypatch):
    return _enter(evaluated_tuned, tmp_path, monkeypatch)


ORIGIN = {"study": "night <1>", "trial": 57, "run": "sdss_jpg-mobilenet"}
CHANGED = {
    "seed": 1, "hidden_units": [256], "learning_rate": 0.00034211, "optimizer": "adamw", "batch_norm": True,
    "augment": {"flip": True}, "origin": ORIGIN,
}  # fmt: skip


def _tuned():
    write_trained(TRAINED / "sdss_jpg/cnn_small", seed=2, weights="scratch")
    write_trained(TRAINED / "sdss_jpg/mobilenet", seed=3, skill=0.0, weights="random")
    facts = {"run": "{label}", "network": "mobilenet", "weights": "random", "params": CHANGED}
    _write_single("sdss_jpg/better", seed=3, skill=4.0, **facts)
    _evaluate("sdss_jpg/cnn_small", "sdss_jpg/mobilenet", "sdss_jpg/better")


def test_tuned_runs_have_a_table_of_their_own(tuned):
    text, summary = _report(), _summary()["runs"]
    table = text[text.index('<h2 id="tuned">') : text.index("How to read it")]
    figures = summary["better"]
    for value in (summary["sdss_jpg-mobilenet"]["test_accuracy"], figures["test_accuracy"]):
        assert f"{value:.3f}" in table
    for value in (figures["gain"], figures["gain_low"], figures["gain_high"]):
        assert f"{value:+.3f}" in table
    assert figures["gain_low"] > 0
    assert "clearly better" in table
    assert "night &lt;1&gt;" in table
    assert "<td>57</td>" in table
    assert 'learning_rate <span class="muted">0.001 →</span> 0.000342' in table
    assert 'hidden_units <span class="muted">[1024, 1024, 512] →</span> [256]' in table
    assert 'batch_norm <span class="muted">null →</span> true' in table
    assert 'augment.flip <span class="muted">false →</span> true' in table
    assert "seed" not in table
    assert "origin" not in table
    assert 'id="singles"' not in text  # the table of tuned runs is theirs


def test_a_tuned_run_stands_in_the_cell_of_its_reference(tuned):
    text = _report()
    page, figures = Page(text), _summary()["runs"]["better"]
    assert f"tuned {figures['test_accuracy']:.3f}" in text[text.index('id="overview"') : text.index('id="tuned"')]
    assert page.ids.count("run-better") == 1
    assert len(page.svg) == 2 * 3
    assert "3 runs: 1 dataset × 2 networks, and 1 tuned by a search." in text
    assert "Not pretrained: mobilenet." in text
    assert "not run" not in text
    table = pd.read_csv(OUT / "results.csv", dtype=str).set_index("run")
    assert table.loc["better", ["trial", "reference"]].tolist() == ["57", "sdss_jpg-mobilenet"]


def test_the_picture_shows_tuned_runs(tuned):
    _report()
    with_tuned = cv2.imread(str(OUT / "results.png"))
    _change_summary(lambda summary: summary["runs"].pop("better"))
    text = _report()
    without = cv2.imread(str(OUT / "results.png"))
    assert with_tuned.shape[1] == without.shape[1]  # no column of its own
    assert with_tuned.shape[0] > without.shape[0]
    assert "Tuned runs" not in text
    assert "<dt>Gain</dt>" not in text


def test_a_tuned_run_whose_reference_was_left_out_says_so(tuned):
    shutil.rmtree(TRAINED / "sdss_jpg/mobilenet")
    _evaluate("sdss_jpg/cnn_small", "sdss_jpg/mobilenet", "sdss_jpg/better")
    text = _report()
    Page(text)
    table = text[text.index('<h2 id="tuned">') : text.index("How to read it")]
    assert "sdss_jpg-mobilenet: not evaluated" in table
    assert "clearly better" not in table
    assert "Not trained yet: sdss_jpg-mobilenet." in text


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda runs: runs.pop("sdss_jpg-mobilenet"), "better: is evaluated without its reference sdss_jpg-mobilenet"),
        (lambda runs: runs["better"].pop("gain"), "better: has no 'gain'"),
        (lambda runs: runs["better"].pop("study"), "better: has no 'study'"),
    ],
)
def test_refuses_a_tuned_run_without_its_comparison(tuned, spoil, words):
    _change_summary(lambda summary: spoil(summary["runs"]))
    with pytest.raises(DataError, match=words):
        _report()


# ---- single runs and vote fractions ----


@pytest.fixture(scope="module")
def evaluated_morphology(tmp_path_factory):
    return _once(tmp_path_factory, _morphology)


@pytest.fixture
def morphology(evaluated_morphology, tmp_path, monkeypatch):
    return _enter(evaluated_morphology, tmp_path, monkeypatch)


def _morphology():
    write_trained(TRAINED / "sdss_jpg/cnn_small", seed=2, weights="scratch")
    classes = ("elliptical", "spiral clockwise")
    rows = _write_single("zoo1/zoo1_all", seed=3, skill=2.5, classes=classes, **FINE_TUNED)
    rows[rows["split"] == "test"].to_csv(TRAINED / "zoo1/zoo1_all/predictions_plain.csv", index=False)
    _write_single("zoo1/zoo1_weak", seed=3, skill=0.2, classes=classes, **FINE_TUNED | {"learn": 2})
    _write_single("zoo_votes/votes_tree", write_fractions, error=0.05)
    _write_single("zoo_votes/votes_sigmoid", write_fractions, error=0.1)
    names = "zoo1/zoo1_all", "zoo1/zoo1_weak", "zoo_votes/votes_tree", "zoo_votes/votes_sigmoid"
    _evaluate("sdss_jpg/cnn_small", *names)


def test_single_runs_and_fractions_have_tables_of_their_own(morphology):
    text, summary = _report(), _summary()["runs"]
    page = Page(text)
    assert "5 runs: 1 dataset × 1 network, and 4 single runs." in text
    overview, singles, fractions = (text.index(f'<h2 id="{name}">') for name in ("overview", "singles", "fractions"))
    end = text.index("How to read it")
    assert "zoo" not in text[overview:singles]
    good, weak = summary["zoo1_all"], summary["zoo1_weak"]
    table = text[singles:fractions]
    assert table.index(f"{good['test_accuracy']:.3f}") < table.index(f"{weak['test_accuracy']:.3f}")
    assert 'fine-tuned<br><span class="muted">mobilenet</span>' in table
    assert "fine-tuned, last 2 blocks" in table
    assert f"{good['views_gain']:+.3f}" in table
    assert f"{good['val_accuracy']:.3f}" in table
    table = text[fractions:end]
    assert "from scratch" in table
    for key in ("votes_tree", "votes_sigmoid"):
        for name in ("test_rmse", "test_rmse_low", "test_rmse_high", "train_rmse", "val_rmse"):
            assert f"{summary[key][name]:.4f}" in table
    assert table.index("votes_tree") < table.index("votes_sigmoid")  # the smaller error first
    assert "run-votes_tree" in page.ids
    for link in page.links:
        assert page.ids.count(link[1:]) == 1 if link.startswith("#") else link == "data:," or (OUT / link).is_file()
    assert "rmse over 3 epochs: training from 0.300 to 0.900; validation from 0.200 to 0.600" in page.svg


def test_every_kind_of_run_has_its_picture(morphology):
    _report()
    assert {path.name for path in OUT.glob("*.png")} == {"results.png", "runs.png", "fractions.png"}
    assert min(cv2.imread(str(path)).std() for path in OUT.glob("*.png")) > 10
    assert len(pd.read_csv(OUT / "results.csv")) == 5


def test_a_page_of_fractions_alone(tmp_path, monkeypatch):
    make_project(tmp_path, monkeypatch)
    _write_single("zoo_votes/votes_tree", write_fractions)
    _evaluate("zoo_votes/votes_tree")
    text = _report()
    Page(text)
    assert "1 run: 1 single run." in text
    assert "Most accurate" not in text
    assert not (OUT / "results.png").exists()
