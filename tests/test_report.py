import json
import re
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

from deepsky.errors import DataError
from deepsky.evaluation.params import EvaluateParams
from deepsky.evaluation.planned import Places
from deepsky.stages import evaluate, report
from deepsky.tracking.runs import HIDDEN, find_run
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
SKY = "https://skyserver.sdss.org/", "https://www.legacysurvey.org/", "http://127.0.0.1:5000/#/experiments/"
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
VOID = {"meta", "link", "br", "line", "polyline", "circle", "hr", "img", "input"}


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
        if "aria-label" in attrs and tag == "svg":
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
    places = Places(packed=Path("data/packed"), features=Path("data/features"), trained=TRAINED, out=RUNS)
    evaluate.run(plan or planned(TRAINED, *names), EvaluateParams(), "sky", places, **folders)


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


def _section(text, name):
    """Return a section of the page by the id of its heading."""
    start = text.index(f'<h2 id="{name}">')
    return text[start : text.index("</section>", start)]


def _report():
    report.run("sky", evaluation=RUNS, out=OUT)
    return (OUT / "index.html").read_text(encoding="utf-8")


def test_numbers_on_the_page_are_those_of_the_summary(project):
    text_of_page = _report()
    page = Page(text_of_page)
    summary = _summary()["runs"]
    for dataset in DATASETS:
        for network in NETWORKS:
            text, figures = page.cells[f"#run-{dataset}-{network}"], summary[f"{dataset}-{network}"]
            assert f"calibration error {figures['test_ece']:.3f}" in text_of_page
            for key in ("test_accuracy", "test_accuracy_low", "test_accuracy_high", "test_f1_macro"):
                assert f"{figures[key]:.3f}" in text
            assert ("weights=random" in text) == (network == "mobilenet")
            assert ("not above baseline" in text) == (figures["test_accuracy_low"] <= figures["test_baseline"])
    table = pd.read_csv(OUT / "results.csv").set_index("run")
    cell = table.loc["sdss_jpg-mobilenet"]
    assert (cell["dataset"], cell["network"], cell["learn"]) == ("sdss_jpg", "mobilenet", "head")
    assert cell["test_accuracy"] == summary["sdss_jpg-mobilenet"]["test_accuracy"]
    assert len(table) == 4


def test_the_best_run_of_a_dataset_is_named_with_how_sure_that_is(project):
    _report()
    path = RUNS / "paired.json"
    everything = json.loads(path.read_text())
    compared = everything["sdss_jpg"]
    assert 0 < compared["better"][0][1] < 1
    for n_differing in (9, 10):
        compared["n_differing"] = [[n_differing] * 2] * 2
        path.write_text(json.dumps(everything))
        section = _section(_report(), "dataset-sdss_jpg")
        is_told = n_differing == 10
        chance = f"{100 * compared['better'][0][1]:.3g} %"
        assert (f"really better than the runner-up with a probability of {chance}" in section) == is_told
        assert (f"({compared['behind_low'][1]:+.4f} to".replace("(-", "(−") in section) == is_told
        assert (f"cannot be told: they differ in 9 of {compared['n_groups']} group" in section) != is_told
        table = pd.read_csv(OUT / "results.csv").set_index("run")
        told = table.loc[compared["runs"][1], "best_is_better"] if "best_is_better" in table else np.nan
        assert told == compared["better"][0][1] if is_told else np.isnan(told)
        assert table.loc[compared["runs"][0], "behind_best"] == 0


def test_everything_the_page_names_is_there_and_nothing_is_outside(project):
    text = _report()
    page = Page(text)
    for link in page.links:
        if link.startswith("#"):
            assert page.ids.count(link[1:]) == 1
        elif not link.startswith(SKY):
            assert link == "data:," or (OUT / link).is_file()
    assert {p.name for p in OUT.iterdir()} == {"index.html", "results.csv", "results.png"}
    for loaded in re.findall(r"url\(([^)]*)\)|<link[^>]*href=\"([^\"]*)|src=\"([^\"]*)", text):
        assert "".join(loaded).startswith("data:")
    assert str(project) not in text
    assert cv2.imread(str(OUT / "results.png")).std() > 10


def test_every_run_shows_its_curves_in_words_too(project):
    page = Page(_report())
    per_run, per_dataset = 2 + 2 + 1, 2 + 2  # epochs, thresholds, reliability
    assert len(page.svg) == per_run * 4 + per_dataset * 2
    assert (
        page.svg[per_dataset] == "accuracy over 3 epochs: training from 0.300 to 0.900; validation from 0.200 to 0.600"
    )


def test_random_weights_are_announced_only_where_there_are_some(project):
    text = _report()
    assert "2 of 4 runs started from random weights" in text
    assert "pretrained ones belong (mobilenet)" in text
    assert "4 runs: 2 datasets × 2 networks." in text
    assert "on this page" not in text
    _change_summary(lambda summary: [summary["runs"].pop(f"{dataset}-mobilenet") for dataset in DATASETS])
    (RUNS / "paired.json").write_text("{}")
    text = _report()
    assert "weights=random" not in text
    assert "random weights" not in text
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
    assert text.count(shown + "</span>") == 3, "in the table of all runs, the overview, and with the run"
    assert cv2.imread(str(OUT / "results.png")).shape[0] > plain.shape[0]


def test_intervals_of_few_groups_are_marked_wherever_they_stand(project):
    assert "unreliable," not in _report()
    _change_summary(
        lambda summary: [
            one.update(n_test_groups=4) for one in summary["runs"].values() if one["dataset"] == "sdss_jpg"
        ]
    )
    text = _report()
    page = Page(text)
    mark = "* unreliable, from 4 groups"
    for network in NETWORKS:
        assert mark in page.cells[f"#run-sdss_jpg-{network}"]
    assert not any(mark in cell for name, cell in page.cells.items() if "sdss_jpg" not in name)
    assert text.count("<li>intervals unreliable, from 4 groups of test objects</li>") == len(NETWORKS)
    assert "<b>*</b> interval unreliable: from fewer than ten groups of objects" in text
    told = pd.read_csv(OUT / "results.csv").groupby("dataset")["interval_is_reliable"].all()
    assert not told["sdss_jpg"]
    assert told.sum() == len(DATASETS) - 1


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
    assert "random weights" not in text


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
    assert page.tags.count("script") == 1


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
        (lambda: (RUNS / "paired.json").write_text('{"sdss_jpg": {}}'), "paired.json: is not what evaluate writes"),
        (
            lambda: _change_summary(lambda s: s["runs"].pop("sdss_jpg-cnn_small")),
            "compares other runs of sdss_jpg than",
        ),
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
    table = _section(text, "tuned")
    figures = summary["better"]
    for value in (summary["sdss_jpg-mobilenet"]["test_accuracy"], figures["test_accuracy"]):
        assert f"{value:.3f}" in table
    for value in (figures["gain"], figures["gain_low"], figures["gain_high"]):
        assert f"{value:+.3f}" in table
    assert figures["gain_low"] > 0
    assert "clearly better" in table
    assert "night &lt;1&gt;" in table
    assert ">57</td>" in table
    assert 'learning_rate <span class="muted">0.001 →</span> 0.000342' in table
    assert 'hidden_units <span class="muted">[1024, 1024, 512] →</span> [256]' in table
    assert 'batch_norm <span class="muted">null →</span> true' in table
    assert 'augment.flip <span class="muted">false →</span> true' in table
    assert "seed" not in table
    assert "origin" not in table


def test_a_tuned_run_stands_in_the_cell_of_its_reference(tuned):
    text = _report()
    page, figures = Page(text), _summary()["runs"]["better"]
    assert f"tuned {figures['test_accuracy']:.3f}" in text[text.index('id="overview"') : text.index('id="tuned"')]
    assert page.ids.count("run-better") == 1
    assert "3 runs: 1 dataset × 2 networks, and 1 tuned by a search." in text
    assert "not run" not in text
    table = pd.read_csv(OUT / "results.csv", dtype=str).set_index("run")
    assert table.loc["better", ["trial", "reference"]].tolist() == ["57", "sdss_jpg-mobilenet"]


def test_the_picture_shows_tuned_runs(tuned):
    _report()
    with_tuned = cv2.imread(str(OUT / "results.png"))
    _change_summary(lambda summary: summary["runs"].pop("better"))
    (RUNS / "paired.json").write_text("{}")
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
    table = _section(text, "tuned")
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
    Path("evaluation/runs/paired.json").write_text("{}")  # it names the same runs, and would be refused first
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


def test_every_run_stands_in_the_table_that_sorts(morphology):
    text, summary = _report(), _summary()["runs"]
    page = Page(text)
    assert "5 runs: 1 dataset × 1 network, and 4 single runs." in text
    rows = dict(re.findall(r'<th scope="row" data-sort="([^"]*)">(.*?)</tr>', _section(text, "leaderboard"), re.DOTALL))
    assert set(rows) == set(summary)
    skills = {}
    for name, row in rows.items():
        figures, is_class = summary[name], summary[name]["target"] == "class"
        score, baseline = figures["test_accuracy" if is_class else "test_rmse"], figures["test_baseline"]
        skills[name] = (score - baseline) / (1 - baseline) if is_class else 1 - score / baseline
        assert f">{score:.3f}<" in row if is_class else f">{score:.4f}<" in row
        assert f"{skills[name]:.2f}".replace("-", "−") in row
        assert ("RMSE" in row) != is_class
    assert list(skills.values()) == sorted(skills.values(), reverse=True)
    assert "fine-tuned</small>" in rows["zoo1_all"]
    assert "fine-tuned, last 2 blocks</small>" in rows["zoo1_weak"]
    gain = _section(text, "views")
    assert f"{summary['zoo1_all']['views_gain']:+.3f}".replace("-", "−") in gain
    assert "zoo1_weak" not in gain
    assert "run-votes_tree" in page.ids
    assert "rmse over 3 epochs: training from 0.300 to 0.900; validation from 0.200 to 0.600" in page.svg


def test_runs_of_one_dataset_stand_side_by_side(morphology):
    text = _report()
    table = _section(text, "dataset-zoo1")
    for label in ("zoo1_all", "zoo1_weak"):
        details = json.loads((RUNS / "zoo1" / label / "metrics.json").read_text())
        for name, scores in details["splits"]["test"]["per_class"].items():
            assert name in table
            shown = f"<b>{scores['f1']:.2f}</b><small>P {scores['precision']:.2f} · R {scores['recall']:.2f}</small>"
            assert shown in table
    votes = _section(text, "dataset-zoo_votes")
    intro = " ".join(votes.split("<table")[0].split())
    assert "40 train" in intro
    assert "galaxies, each with 37 vote fractions" in intro
    assert "<th>galaxy" not in votes


def test_questions_are_not_mixed_in_short(morphology):
    cards = re.findall(r'<article class="task">(.*?)</article>', _report(), re.DOTALL)
    titles = [re.search("<h2>(.*?)</h2>", card)[1] for card in cards]
    assert sorted(titles) == ["GALAXY, QSO or STAR?", "How people voted on galaxies", "elliptical or spiral clockwise?"]
    assert "best of 2 runs" in cards[titles.index("elliptical or spiral clockwise?")]


def test_objects_are_shown_with_links_where_their_position_is_known(morphology):
    text = _report()
    galleries = text.count('<figure class="object')
    assert text.count(">SDSS</a>") == text.count(">Legacy</a>")
    assert 0 < text.count(">SDSS</a>") < galleries
    assert "simulated sky" not in text
    album = json.loads((RUNS / "sdss_jpg/cnn_small/examples.json").read_text())
    for group in album["groups"]:
        assert group["heading"] in text
    pictures = re.findall(r"^\.p(\d+)\{background-image:url\((.*?)\)", text, re.MULTILINE)
    assert len({picture for _, picture in pictures}) == len(pictures), "each picture once"
    assert set(re.findall(r'class="picture p(\d+)"', text)) == {number for number, _ in pictures}


def test_the_page_says_where_a_run_came_from(project):
    key = _summary()["runs"]["sdss_jpg-cnn_small"]["key"]
    run = find_run("sky", key)
    tags = {"mlflow.source.git.commit": "c0ffee" * 6, f"{HIDDEN}git_dirty": "true", f"{HIDDEN}versions": "keras 3.0"}
    for name, value in (tags | {f"{HIDDEN}data.data/packed/sdss_jpg": "abcdef0123456.dir"}).items():
        run.set_tag(name, value)
    run.log_metrics({"training_s": 3725.0})
    text = _report()
    facts = text[text.index('id="run-sdss_jpg-cnn_small"') :].split('id="run-')[1]
    for shown in (
        "c0ffeec0ffee",
        "with uncommitted changes",
        "keras 3.0",
        "data/packed/sdss_jpg",
        "abcdef012345",
        "62 min",
    ):
        assert shown in facts
    assert "searchFilter=attributes.run_name%20%3D%20%27sdss_jpg-cnn_small%27" in facts
    assert run.run_id not in text


@pytest.mark.skipif(BROWSER is None, reason="no chromium here")
def test_a_browser_sorts_and_filters_and_cuts_nothing(project):
    _report()
    check = """<script>
    const column = (n) => [...body.rows].filter((row) => !row.hidden).map((row) => row.cells[n].dataset.sort);
    const found = {first: column(3)};
    const press = (n) => board.tHead.rows[0].cells[n].querySelector("button").click();
    press(3); found.falling = column(3); press(3); found.rising = column(3); press(0); found.names = column(0);
    controls.elements.dataset.value = "sdss_jpg"; filter(); found.filtered = column(1); found.said = shown.value;
    const cut = (view) => {
      for (const one of view.document.querySelectorAll("details")) one.open = true;
      const sticksOut = (one) => one.getBoundingClientRect().right > view.innerWidth + 1;
      const scrolls = (one) => one.clientWidth && one.scrollWidth > one.clientWidth + 1;
      return [...view.document.body.querySelectorAll("*")].filter(
        (one) => sticksOut(one) || (scrolls(one) && one.matches("body, .scroll, .table"))
      ).map((one) => one.className || one.tagName);
    };
    found.cut = cut(window);
    const phone = document.createElement("iframe");
    phone.style.width = "390px";
    phone.onload = () => {
      found.phone = cut(phone.contentWindow);
      document.title = JSON.stringify(found);
    };
    phone.srcdoc = document.documentElement.outerHTML.replaceAll("<script>", "<script type=none>");
    document.body.append(phone);
    </script>"""
    page = OUT / "index.html"
    page.write_text(page.read_text().replace("</body>", f"{check}</body>"))
    quiet = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-background-networking",
        "--enable-logging=stderr",
        "--virtual-time-budget=5000",
    ]
    done = subprocess.run(
        [BROWSER, *quiet, "--window-size=1400,1000", "--dump-dom", page.resolve().as_uri()],
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    assert "CONSOLE" not in done.stderr
    found = json.loads(re.search("<title>(.*?)</title>", done.stdout)[1])
    scores = sorted(map(float, found["first"]))
    assert list(map(float, found["falling"])) == scores[::-1]
    assert list(map(float, found["rising"])) == scores
    assert found["names"] == sorted(found["names"])
    assert (found["filtered"], found["said"]) == (["sdss_jpg"] * 2, "2 of 4 runs")
    assert (found["cut"], found["phone"]) == ([], [])


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
    assert "accuracy" not in text[text.index("<main>") : text.index('<section class="notes">')]
    assert not (OUT / "results.png").exists()
