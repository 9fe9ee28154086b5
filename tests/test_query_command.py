import hashlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from deepsky.archives import skyserver
from deepsky.archives.params import DownloadParams
from deepsky.catalogue.tables import REFERENCE_COLUMNS
from deepsky.commands import query as command
from deepsky.errors import ConfigError, DataError
from tests.archive_server import ArchiveServer
from tests.sql_service import REFERENCE_SQL, SQL_PATHS, SqlService, synthetic_objects

OBJECTS = synthetic_objects()
ALL_SQL = REFERENCE_SQL.replace("TOP 100000", "")


@pytest.fixture(autouse=True)
def _folder(monkeypatch, tmp_path):
    monkeypatch.setattr(skyserver, "QUERIES_PER_S", 1000.0)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def service():
    return SqlService(OBJECTS)


@pytest.fixture
def ask(service, tmp_path):
    with ArchiveServer({}, pages=dict.fromkeys(SQL_PATHS, service)) as server:
        params = DownloadParams(server.url, 1, requests_per_s=None, timeout_s=60, tries=1, contact=None)

        def run(sql=None, n=None, release="dr17", **options):
            if sql is not None:
                (tmp_path / "my.sql").write_text(sql)
            command.run(tmp_path / "my.sql" if sql is not None else None, n, release, params, **options)

        yield run


def folder(tmp_path):
    return {path.name: path.read_bytes() for path in (tmp_path / "data/query").iterdir()}


def test_a_balanced_sample(ask, tmp_path, capsys):
    ask(n=20, page_rows=15)
    table = pd.read_csv(tmp_path / "data/query/catalogue.csv", dtype=str)
    assert tuple(table.columns) == REFERENCE_COLUMNS
    assert table["class"].value_counts().to_dict() == {"GALAXY": 20, "QSO": 20, "STAR": 20}
    known = OBJECTS.set_index("objid")
    pd.testing.assert_series_equal(
        table["specobjid"], known.loc[table["objid"], "specobjid"].reset_index(drop=True), check_index=False
    )
    said = capsys.readouterr()
    n_fields = len(table[["run", "camcol", "field"]].drop_duplicates())
    assert "20 GALAXY, 20 QSO, 20 STAR" in said.out
    assert f"60 objects in {n_fields} fields; frames a band: {n_fields} (about " in said.out
    assert "set catalogue.survey: sdss in params.yaml, then make repro" in said.out
    assert "QSO: 15 rows\nQSO: 20 rows\n" in said.err


def test_what_was_asked_stands_beside_the_answer(ask, service, tmp_path):
    ask(ALL_SQL, release="dr9")
    files = folder(tmp_path)
    facts = json.loads(files["query.json"])
    assert facts["sha256"] == hashlib.sha256(files["catalogue.csv"]).hexdigest()
    assert (facts["release"], facts["rows"]) == ("dr9", len(OBJECTS))
    assert facts["service"] == "https://skyserver.sdss.org/dr9/en/tools/search/x_sql.asp"
    assert facts["sql"][0] in service.asked[0]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", facts["time"])
    assert set(files) == {"catalogue.csv", "query.json"}


def test_the_same_question_has_the_same_answer(ask, tmp_path):
    ask(n=20, page_rows=7)
    first = folder(tmp_path)["catalogue.csv"]
    ask(n=20)
    assert folder(tmp_path)["catalogue.csv"] == first


def test_the_reference_query_is_the_default(ask, tmp_path):
    ask()
    table = pd.read_csv(tmp_path / "data/query/catalogue.csv", dtype=str)
    assert table["objid"].tolist() == sorted(OBJECTS["objid"], key=int)


def test_a_smaller_number_after_an_interrupted_larger_one(ask, service, tmp_path):
    """The pages that were kept hold more than is asked for now."""
    service.spoil[3] = lambda text: (503, {}, b"Closed")
    with pytest.raises(DataError):
        ask(n=20, page_rows=15)
    ask(n=5, page_rows=15)
    table = pd.read_csv(tmp_path / "data/query/catalogue.csv", dtype=str)
    assert table["class"].value_counts().to_dict() == {"GALAXY": 5, "QSO": 5, "STAR": 5}


def test_an_answer_that_is_no_catalogue_leaves_nothing(service, ask, tmp_path):
    service.spoil[1] = lambda text: re.sub(r"(?m)^(\d+),[\d.]+,", r"\1,400.0,", text)
    with pytest.raises(DataError, match=r"the answer: object 1 .* has ra '400.0'; ask otherwise"):
        ask(ALL_SQL)
    assert not [path for path in (tmp_path / "data/query").iterdir() if path.is_file()]


def test_columns_beyond_the_reference_come_last_and_names_have_its_case(ask, tmp_path):
    ask(ALL_SQL.replace("p.objid,p.ra", "p.u - p.g AS colour,p.objid AS objID,p.ra"))
    table = pd.read_csv(tmp_path / "data/query/catalogue.csv", dtype=str)
    assert tuple(table.columns) == (*REFERENCE_COLUMNS, "colour")


def test_an_interrupted_query_goes_on(ask, service, tmp_path):
    service.spoil[4] = lambda text: "Busy"
    with pytest.raises(DataError, match="Busy"):
        ask(ALL_SQL, page_rows=100)
    assert set(folder_names(tmp_path)) == {".pages"}
    service.spoil[5] = lambda text: "Busy"  # another question has pages of its own
    with pytest.raises(DataError, match="Busy"):
        ask(ALL_SQL, page_rows=100, release="dr16")
    ask(ALL_SQL, page_rows=100)
    assert len(pd.read_csv(tmp_path / "data/query/catalogue.csv")) == len(OBJECTS)
    counts = pd.Series(service.asked).value_counts()
    assert counts[counts > 1].to_dict() == {service.asked[0]: 2, service.asked[3]: 2}  # of two releases; after failing
    assert set(folder_names(tmp_path)) == {"catalogue.csv", "query.json"}


def folder_names(tmp_path):
    return [path.name for path in (tmp_path / "data/query").iterdir()]


def test_fewer_than_asked_for_are_kept_and_told(ask, tmp_path, capsys):
    counts = OBJECTS["class"].value_counts()
    ask(n=int(counts["QSO"]) + 3)
    assert (
        f"QSO: there are only {counts['QSO']} of the {counts['QSO'] + 3} objects asked for" in capsys.readouterr().err
    )
    assert len(pd.read_csv(tmp_path / "data/query/catalogue.csv")) == 3 * counts["QSO"] + 6


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"sql": ALL_SQL, "n": 5}, "--sql: and --objects-per-class exclude each other"),
        ({"n": 0}, "--objects-per-class: 0 is out of range"),
        ({"sql": "DROP TABLE PhotoObj"}, "my.sql: begins with 'DROP'"),
    ],
)
def test_what_is_no_selection_is_one_line_and_asks_nothing(ask, service, tmp_path, arguments, problem):
    with pytest.raises(ConfigError, match=problem) as caught:
        ask(**arguments)
    assert "\n" not in str(caught.value)
    assert service.asked == []
    assert not (tmp_path / "data").exists()


def test_an_unreadable_sql_file_is_one_line(tmp_path):
    with pytest.raises(ConfigError, match=r"absent.sql: cannot be read \(No such file"):
        command.run(tmp_path / "absent.sql", None, "dr17", None)


def test_no_object_and_no_columns_leave_nothing(ask, tmp_path):
    with pytest.raises(DataError, match="has no object of that kind"):
        ask(ALL_SQL.replace("19.6", "0.1"))
    with pytest.raises(DataError, match=r"has no column ra, dec, .*select the columns of the reference query"):
        ask("SELECT p.*, s.specobjid FROM (SELECT objid FROM PhotoObj) AS p JOIN SpecObj s ON s.bestobjid = p.objid")
    assert not (tmp_path / "data/query/catalogue.csv").exists()
    assert not (tmp_path / "data/query/query.json").exists()


def test_a_table_of_the_users_own_is_not_overwritten(ask, service, tmp_path):
    own = tmp_path / "data/query/catalogue.csv"
    own.parent.mkdir(parents=True)
    own.write_text("objid,ra\n1,2\n")
    with pytest.raises(DataError, match=r"catalogue.csv: is not what deepsky query wrote; move your table away"):
        ask(n=2)
    assert own.read_text() == "objid,ra\n1,2\n"
    assert service.asked == []


def test_a_folder_that_cannot_be_written_is_one_line(ask, tmp_path):
    (tmp_path / "data").write_text("a file")
    with pytest.raises(DataError, match=r"data/query.* cannot be written"):
        ask(n=2)


def test_in_a_dvc_project_the_table_is_versioned(ask, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    subprocess.run(["dvc", "init", "--no-scm", "--quiet"], cwd=tmp_path, check=True)
    for n in (2, 3):  # the second time over a file that DVC protects
        ask(n=n)
        noted = (tmp_path / "data/query/catalogue.csv.dvc").read_text()
        assert hashlib.md5((tmp_path / "data/query/catalogue.csv").read_bytes()).hexdigest() in noted
