"""deepsky errors: what a run got wrong, as a list, a table and a sheet of pictures."""

import pandas as pd
import pytest
from click.testing import CliRunner

from deepsky.cli import cli
from tests.trained_folders import make_project, write_fractions, write_trained

PARAMS = """
datasets:
  pictures:
    zoo: {format: images, source: data, id_column: id, label_column: class, classes: [GALAXY, QSO, STAR], size_px: 12}
compare: {datasets: {zoo}, networks: {cnn_small, vgg16}}
"""


@pytest.fixture
def project(tmp_path, monkeypatch):
    make_project(tmp_path, monkeypatch)
    (tmp_path / "params.yaml").write_text(PARAMS)
    return tmp_path


def _errors(*arguments):
    return CliRunner().invoke(cli, ["errors", *map(str, arguments)], catch_exceptions=False)


@pytest.mark.parametrize(
    "by", ["zoo-cnn_small", "zoo/cnn_small", "models/trained/zoo/cnn_small", "models/trained/zoo/cnn_small/model.h5"]
)
def test_errors_are_listed_worst_first_with_a_sheet_of_their_pictures(project, by):
    predictions = write_trained(project / "models/trained/zoo/cnn_small", skill=0.5)
    done = _errors(by, "--limit", 7)
    table = pd.read_csv("evaluation/errors/zoo-cnn_small.csv", dtype={"id": str}).set_index("id")
    assert len(table) == 7
    assert table["probability"].is_monotonic_decreasing
    assert (table["truth"] != table["answer"]).all()
    truth = predictions.set_index("id")
    for name, row in table.iterrows():
        assert (truth.loc[name, "split"], truth.loc[name, "label"]) == ("test", row["truth"])
        assert name in done.output
        known = pd.notna(row["dec_deg"])
        assert (f"ra={row['ra_deg']:.6f}&dec=-1.250000" in str(row["sdss"])) == known
        assert str(row["legacy"]).startswith("https://www.legacysurvey.org/viewer?") == known
    sheet = (project / "evaluation/errors/zoo-cnn_small.html").read_text()
    assert sheet.count("<figure") == 7
    assert sheet.count("data:image/jpeg") == 7
    assert sheet.count(">SDSS</a>") == table["dec_deg"].notna().sum() > 0
    assert "evaluation/errors/zoo-cnn_small.html" in done.output


def test_fractions_are_listed_by_their_error(project):
    write_fractions(project / "models/trained/votes/tree")
    assert _errors("models/trained/votes/tree", "--limit", 3).exit_code == 0
    table = pd.read_csv("evaluation/errors/tree.csv")
    assert table["rmse"].is_monotonic_decreasing
    assert len(table) == 3
    assert table["truth"].str.match(r"smooth \d").all()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["zoo-vgg16"], "zoo-vgg16: is neither a file nor a trained run; .*models/trained holds none yet"),
        (["data"], "data: is a folder without model.h5, and no trained run"),
        (["zoo-cnn_small", "--limit", "0"], "--limit 0: shows nothing"),
    ],
)
def test_refuses_what_is_no_trained_run(project, arguments, words):
    (project / "data").mkdir()
    with pytest.raises(Exception, match=words.replace("(", r"\(")):
        _errors(*arguments)
    assert not (project / "evaluation").exists()
