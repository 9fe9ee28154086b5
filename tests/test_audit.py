"""The audit finds what labels leak through beside the pictures, says what photometry reaches, and is made once."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from deepsky.datasets.packed import DatasetCard, open_packed, write_rows
from deepsky.evaluation import audit
from deepsky.evaluation.audit import KEPT, audit_datasets, beside_photometry, photometric_remark, read_audit
from deepsky.evaluation.params import EvaluateParams
from deepsky.evaluation.planned import Places, PlannedRun
from deepsky.evaluation.shortcuts import circle_levels, circles, photometry, shortcuts
from deepsky.report.results import read_results
from deepsky.stages import evaluate, report
from tests.trained_folders import CLASSES, make_project, planned, write_trained

N, SIDE = 240, 16
TRAINED, PACKED, OUT = Path("models/trained"), Path("data/packed"), Path("evaluation/runs")
PLACES = Places(packed=PACKED, features=Path("data/features"), trained=TRAINED, out=OUT)
WANTED = EvaluateParams(audit=True)


def write_flux(predictions: pd.DataFrame) -> None:
    """Write u to z flux whose r light tells STAR; the sky tells every class, as does the place in the table."""
    rng = np.random.default_rng(0)
    code = predictions["label"].map(CLASSES.index).to_numpy()
    images = rng.normal(0, 0.01, (N, SIDE, SIDE, 5)).astype(np.float32)
    images[..., 2] += circles(SIDE, SIDE)[2] * (code == 2)[:, np.newaxis, np.newaxis]
    rows = predictions[["id", "label"]].assign(
        image=np.arange(N), sky_r=code + rng.normal(0, 0.1, N), r_mag=rng.normal(20, 1, N), ra=1.0, psf_g=np.nan
    )
    folder = PACKED / "sky"
    np.save(folder / "images.npy", images)
    write_rows(folder, rows, DatasetCard("flux", tuple("ugriz"), tuple("irg"), CLASSES, 0.4, 0), [])


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[PlannedRun]:
    """Two trainings on one dataset: a good network, and one that knows little."""
    make_project(tmp_path, monkeypatch)
    for name, skill in (("sky/good", 6.0), ("sky/poor", 0.1)):
        path = TRAINED / name / "predictions.csv"
        predictions = write_trained(path.parent, skill=skill, n_objects=N).sort_values("label", kind="stable")
        predictions.to_csv(path, index=False)
    write_flux(predictions.reset_index(drop=True))
    return planned(TRAINED, "sky/good", "sky/poor")


def evaluated(runs: list[PlannedRun]) -> dict[str, Any]:
    evaluate.run(runs, WANTED, "sky", PLACES, metrics=Path("evaluation/metrics"), plots=Path("evaluation/plots"))
    summary: dict[str, Any] = json.loads((OUT / "summary.json").read_text())["runs"]
    return summary


def test_a_leak_is_found_and_what_says_nothing_stays_at_chance(runs: list[PlannedRun]) -> None:
    assert audit_datasets(runs, WANTED, PLACES, "") == {}
    found = read_audit(OUT / "sky")
    assert found is not None
    assert set(found.shortcuts) == {"magnitude", "sky level", "image mean outside the object", "row order"}
    assert found.shortcuts["sky level"]["accuracy"] > 0.97
    assert found.shortcuts["row order"]["accuracy"] > 0.97
    assert found.shortcuts["magnitude"]["accuracy"] < 0.5
    assert found.shortcuts["image mean outside the object"]["accuracy_low"] < 0.45
    assert list(found.photometry) == ["ugriz", "gri"]
    for figures in found.photometry.values():  # it tells STAR from the others, and nothing more
        assert 0.5 < figures["accuracy"] < 0.85


def test_it_is_made_again_only_when_something_it_follows_from_changed(
    runs: list[PlannedRun], monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Any] = []
    entry = {"problem": "", "shortcuts": {"row order": {"accuracy": 0.5}}, "photometry": {}}
    monkeypatch.setattr(audit, "_audited", lambda work: made.append(work) or entry)

    def is_made_again(code: str = "", params: EvaluateParams = WANTED) -> bool:
        n_before = len(made)
        assert audit_datasets(runs, params, PLACES, code) == {}
        return len(made) > n_before

    assert [is_made_again(), is_made_again()] == [True, False]
    assert is_made_again(code="changed")
    assert [is_made_again(params=replace(WANTED, seed=2)), is_made_again()] == [True, True]
    rows, images = PACKED / "sky/rows.csv", PACKED / "sky/images.npy"
    rows.write_text(rows.read_text() + "\n")
    assert [is_made_again(), is_made_again()] == [True, False]
    np.save(images, np.load(images) + 1)
    assert is_made_again()
    entry["problem"] = "need more objects"
    assert audit_datasets(runs, WANTED, PLACES, "again") == {"sky": "need more objects"}
    audit_datasets(runs, EvaluateParams(), PLACES, "")
    assert not (OUT / "sky" / KEPT).exists()
    assert beside_photometry({"a": {"b": 1.0}}, runs, OUT) == {"a": {"b": 1.0}}


def test_a_run_that_photometry_matches_says_so_everywhere(
    runs: list[PlannedRun], capsys: pytest.CaptureFixture[str]
) -> None:
    summary = evaluated(runs)
    good, poor = summary["sky-good"], summary["sky-poor"]
    assert good["photometric_accuracy"] == poor["photometric_accuracy"] < good["test_accuracy_low"]
    assert good["remark"] == ""
    told = photometric_remark(poor)
    assert told.startswith(f"not above photometry: {poor['test_accuracy']:.3f} against ")
    assert poor["remark"] == told
    assert capsys.readouterr().err == f"WARNING: sky-poor {told}\n"
    report.run("sky", evaluation=OUT, out=Path("reports"))
    page = Path("reports/index.html").read_text()
    marked = f'title="{told}">†<span class="unseen"> {told}</span>'
    assert page.count(marked) == 3, "in the table of all runs, the overview, and with the run"
    assert "<b>†</b> not above photometry: " in page
    assert f"<li>{told}</li>" in page
    assert "1 run is not above photometry (†):" in page
    section = page[page.index("What needs no picture") :].partition("</section>")[0]
    assert section.index("row order") < section.index("light in circles, ugriz") < section.index("magnitude")
    assert "<strong>sky level, row order</strong> alone come within the interval of the best network" in section
    poor_remark = next(one for one in read_results(OUT).runs if one.name == "sky-poor")
    assert (poor_remark.of_photometry, poor_remark.defect, poor_remark.remark) == (told, "", told)


def test_circles_hold_their_light_and_whole_frames_have_none(runs: list[PlannedRun]) -> None:
    packed = open_packed(PACKED / "sky")
    levels = circle_levels(packed.images)
    masks = circles(SIDE, SIDE)
    for place in range(len(masks)):
        assert levels[3, place] == pytest.approx(packed.images[3][masks[place]].mean(axis=0), abs=1e-5)
    tables = photometry(packed, levels)
    assert {name: table.shape for name, table in tables.items()} == {"ugriz": (N, 36), "gri": (N, 20)}
    wide = replace(packed, images=np.zeros((N, 4, 8, 5), np.float32))
    assert photometry(wide, circle_levels(wide.images)) == {}
    assert "row order" in shortcuts(wide, circle_levels(wide.images))
