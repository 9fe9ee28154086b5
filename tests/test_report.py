import json
import shutil
from html.parser import HTMLParser
from pathlib import Path

import cv2
import pandas as pd
import pytest

from deepsky.errors import DataError
from deepsky.stages import evaluate, report
from deepsky.tuning.adopted import Adopted
from tests.trained_folders import RECIPE, make_project, write_fractions, write_trained

DATASETS, NETWORKS = ("sdss_cutouts", "sdss_jpg"), ("cnn_small", "mobilenet")
RUNS, METRICS, OUT = Path("evaluation/runs"), Path("evaluation/metrics.json"), Path("reports")
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
        prepare(Path("models/trained"))
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


def _matrix(trained):
    for i, dataset in enumerate(DATASETS):
        for j, network in enumerate(NETWORKS):
            weights = ("scratch", "random")[j]
            write_trained(trained / dataset / network, seed=2 * i + j, skill=(2.5, 0.0)[i], weights=weights)
    evaluate.run(DATASETS, NETWORKS, [], [], "sky", trained=trained, out=RUNS, metrics=METRICS)


def _report():
    report.run(evaluation=RUNS, metrics=METRICS, out=OUT)
    return (OUT / "index.html").read_text(encoding="utf-8")


def test_numbers_on_the_page_are_those_of_the_metrics_file(project):
    page = Page(_report())
    summary = json.loads(METRICS.read_text())
    assert len(page.cells) == 4
    for dataset in DATASETS:
        for network in NETWORKS:
            text, figures = page.cells[f"#{dataset}-{network}"], summary[dataset][network]
            for key in ("test_accuracy", "test_accuracy_low", "test_accuracy_high", "test_f1_macro"):
                assert f"{figures[key]:.3f}" in text
            assert ("weights=random" in text) == (network == "mobilenet")
            assert ("not above baseline" in text) == (figures["test_accuracy_low"] <= figures["test_baseline"])
    table = pd.read_csv(OUT / "results.csv").set_index(["dataset", "network"])
    assert table.loc[("sdss_jpg", "mobilenet"), "test_accuracy"] == summary["sdss_jpg"]["mobilenet"]["test_accuracy"]
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
    assert "2 of 4 runs use random weights" in _report()
    summary = json.loads(METRICS.read_text())
    METRICS.write_text(json.dumps({"sdss_jpg": {"cnn_small": summary["sdss_jpg"]["cnn_small"]}}))
    text = _report()
    assert "weights=random" not in text
    assert "1 trained network:" in text


def test_custom_weights_are_named(project):
    write_trained(Path("models/trained/zoo/mobilenet"), weights="custom")
    evaluate.run(["zoo"], ["mobilenet"], [], [], "sky", trained=Path("models/trained"), out=RUNS, metrics=METRICS)
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
    write_trained(Path("models/trained/zoo/cnn_small"), classes=("<b>&", "</table><script>"), weights="scratch")
    evaluate.run(["zoo"], ["cnn_small"], [], [], "sky", trained=Path("models/trained"), out=RUNS, metrics=METRICS)
    page = Page(_report())
    assert "script" not in page.tags


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda: METRICS.unlink(), r"metrics\.json: cannot be read"),
        (lambda: METRICS.write_text("{}"), "holds no run"),
        (lambda: METRICS.write_text("[]"), "is not a JSON object"),
        (lambda: METRICS.write_text('{"sdss_jpg": {"cnn_small": {}}}'), "sdss_jpg.cnn_small: has no 'target'"),
        (
            lambda: METRICS.write_text('{"sdss_jpg": {"cnn_small": {"target": "class"}}}'),
            "sdss_jpg.cnn_small: has no 'weights'",
        ),
        (
            lambda: METRICS.write_text('{"sdss_jpg": {"cnn_small": {"target": "mood"}}}'),
            "sdss_jpg.cnn_small: has an unknown target 'mood'",
        ),
        (lambda: (RUNS / "sdss_jpg/cnn_small/metrics.json").unlink(), "cnn_small/metrics.json: cannot be read"),
        (lambda: (RUNS / "sdss_jpg/cnn_small/metrics.json").write_text("{}"), "has no 'classes'"),
    ],
)
def test_refuses_what_evaluate_did_not_write(project, spoil, words):
    spoil()
    with pytest.raises(DataError, match=words):
        _report()
    assert not OUT.exists()


# ---- tuned networks beside their references ----


@pytest.fixture(scope="module")
def evaluated_tuned(tmp_path_factory):
    return _once(tmp_path_factory, _tuned)


@pytest.fixture
def tuned(evaluated_tuned, tmp_path, monkeypatch):
    return _enter(evaluated_tuned, tmp_path, monkeypatch)


def _tuned(trained):
    write_trained(trained / "sdss_jpg/cnn_small", seed=2, weights="scratch")
    write_trained(trained / "sdss_jpg/mobilenet", seed=3, skill=0.0, weights="random")
    train = {"seed": 1, "hidden_units": [256], "learning_rate": 0.00034211, "optimizer": "adamw", "batch_norm": True}
    params = {"train": train, "tuned": {"network": "mobilenet", "study": "night <1>", "trial": 57}}
    write_trained(trained / "sdss_jpg/mobilenet_tuned", seed=3, skill=4.0, weights="random", params=params)
    adopted = Adopted(dataset="sdss_jpg", network="mobilenet", study="night <1>", trial=57)
    evaluate.run(["sdss_jpg"], NETWORKS, [adopted], [], "sky", trained=trained, out=RUNS, metrics=METRICS)


def test_tuned_heads_have_a_table_of_their_own(tuned):
    text, summary = _report(), json.loads(METRICS.read_text())["sdss_jpg"]
    table = text[text.index('<h2 id="tuned">') : text.index("How to read it")]
    figures = summary["mobilenet_tuned"]
    for value in (summary["mobilenet"]["test_accuracy"], figures["test_accuracy"]):
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
    assert "seed" not in table


def test_a_tuned_run_stands_in_the_cell_of_its_reference(tuned):
    text = _report()
    page, figures = Page(text), json.loads(METRICS.read_text())["sdss_jpg"]["mobilenet_tuned"]
    assert f"tuned {figures['test_accuracy']:.3f}" in page.cells["#sdss_jpg-mobilenet_tuned"]
    assert page.ids.count("sdss_jpg-mobilenet_tuned") == 1
    assert len(page.svg) == 2 * 3
    assert "3 trained networks: 1 dataset × 2 networks, and 1 tuned by a search." in text
    assert "The backbones mobilenet were" in text
    assert "not run" not in text
    table = pd.read_csv(OUT / "results.csv", dtype=str).set_index(["dataset", "network"])
    assert table.loc[("sdss_jpg", "mobilenet_tuned"), "trial"] == "57"
    assert table.loc[("sdss_jpg", "mobilenet_tuned"), "tuned_from"] == "mobilenet"


def test_the_picture_shows_tuned_runs(tuned):
    _report()
    with_tuned = cv2.imread(str(OUT / "results.png"))
    summary = json.loads(METRICS.read_text())
    del summary["sdss_jpg"]["mobilenet_tuned"]
    METRICS.write_text(json.dumps(summary))
    text = _report()
    without = cv2.imread(str(OUT / "results.png"))
    assert with_tuned.shape[1] == without.shape[1]  # no column of its own
    assert with_tuned.shape[0] > without.shape[0]
    assert "Tuned heads" not in text
    assert "<dt>Gain</dt>" not in text


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda runs: runs.pop("mobilenet"), "sdss_jpg.mobilenet_tuned: is evaluated without its reference"),
        (lambda runs: runs["mobilenet_tuned"].pop("gain"), "sdss_jpg.mobilenet_tuned: has no 'gain'"),
    ],
)
def test_refuses_a_tuned_run_without_its_comparison(tuned, spoil, words):
    summary = json.loads(METRICS.read_text())
    spoil(summary["sdss_jpg"])
    METRICS.write_text(json.dumps(summary))
    with pytest.raises(DataError, match=words):
        _report()


# ---- recipes and vote fractions ----


@pytest.fixture(scope="module")
def evaluated_morphology(tmp_path_factory):
    return _once(tmp_path_factory, _morphology)


@pytest.fixture
def morphology(evaluated_morphology, tmp_path, monkeypatch):
    return _enter(evaluated_morphology, tmp_path, monkeypatch)


def _morphology(trained):
    write_trained(trained / "sdss_jpg/cnn_small", seed=2, weights="scratch")
    folder = trained / "zoo1/zoo1_tuned_all"
    rows = write_trained(folder, seed=3, skill=2.5, classes=("elliptical", "spiral clockwise"), **RECIPE)
    rows[rows["split"] == "test"].to_csv(folder / "predictions_plain.csv", index=False)
    write_trained(trained / "zoo1/zoo1_weak", seed=3, skill=0.2, classes=("elliptical", "spiral clockwise"), **RECIPE)
    write_fractions(trained / "zoo_votes/votes_tree", error=0.05)
    write_fractions(trained / "zoo_votes/votes_sigmoid", seed=1, error=0.1)
    recipes = [
        ("zoo1", "zoo1_tuned_all"),
        ("zoo1", "zoo1_weak"),
        ("zoo_votes", "votes_tree"),
        ("zoo_votes", "votes_sigmoid"),
    ]
    evaluate.run(
        ["sdss_jpg"], ["cnn_small"], [], recipes, "sky", trained=trained, out=RUNS, metrics=METRICS
    )  # fmt: skip


def test_recipes_and_fractions_have_tables_of_their_own(morphology):
    text, summary = _report(), json.loads(METRICS.read_text())
    page = Page(text)
    assert "5 trained networks: 1 dataset × 1 network, and 4 recipes." in text
    overview, recipes, fractions = (text.index(f'<h2 id="{name}">') for name in ("overview", "recipes", "fractions"))
    end = text.index("How to read it")
    assert "zoo" not in text[overview:recipes]
    good, weak = summary["zoo1"]["zoo1_tuned_all"], summary["zoo1"]["zoo1_weak"]
    table = text[recipes:fractions]
    assert table.index(f"{good['test_accuracy']:.3f}") < table.index(f"{weak['test_accuracy']:.3f}")
    assert "fine tune" in table
    assert f"{good['views_gain']:+.3f}" in table
    assert f"{good['val_accuracy']:.3f}" in table
    table = text[fractions:end]
    for key in ("votes_tree", "votes_sigmoid"):
        for name in ("test_rmse", "test_rmse_low", "test_rmse_high", "train_rmse", "val_rmse"):
            assert f"{summary['zoo_votes'][key][name]:.4f}" in table
    assert table.index("votes_tree") < table.index("votes_sigmoid")  # the smaller error first
    assert "zoo_votes-votes_tree" in page.ids
    for link in page.links:
        assert page.ids.count(link[1:]) == 1 if link.startswith("#") else link == "data:," or (OUT / link).is_file()
    assert "rmse over 3 epochs: training from 0.300 to 0.900; validation from 0.200 to 0.600" in page.svg


def test_every_kind_of_run_has_its_picture(morphology):
    _report()
    assert {path.name for path in OUT.glob("*.png")} == {"results.png", "recipes.png", "fractions.png"}
    assert min(cv2.imread(str(path)).std() for path in OUT.glob("*.png")) > 10
    assert len(pd.read_csv(OUT / "results.csv")) == 5


def test_a_page_of_fractions_alone(tmp_path, monkeypatch):
    make_project(tmp_path, monkeypatch)
    write_fractions(Path("models/trained/zoo_votes/votes_tree"))
    trained = Path("models/trained")
    evaluate.run([], [], [], [("zoo_votes", "votes_tree")], "sky", trained=trained, out=RUNS, metrics=METRICS)
    text = _report()
    Page(text)
    assert "1 trained network: 1 recipe." in text
    assert "Most accurate run" not in text
    assert not (OUT / "results.png").exists()
