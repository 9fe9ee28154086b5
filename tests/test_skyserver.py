import re
from dataclasses import replace

import pandas as pd
import pytest

from deepsky.archives import skyserver
from deepsky.archives.http import Client
from deepsky.archives.params import DownloadParams
from deepsky.archives.skyserver import read_answer, select_objects
from deepsky.catalogue.queries import CLASSES, class_queries, user_query
from deepsky.catalogue.tables import REFERENCE_COLUMNS
from deepsky.errors import DataError
from tests.archive_server import ArchiveServer
from tests.sql_service import REFERENCE_SQL, SQL_PATHS, SqlService, synthetic_objects, with_true_ids

OBJECTS = synthetic_objects()
TWICE = OBJECTS.iloc[[7, 50]].assign(specobjid=["42", "43"], plate="1")  # two spectra of one galaxy, star or quasar
FIELD = ["run", "camcol", "field"]


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(skyserver, "QUERIES_PER_S", 1000.0)


@pytest.fixture
def service():
    return SqlService(pd.concat([OBJECTS, TWICE]))


@pytest.fixture
def client(service):
    with ArchiveServer({}, pages=dict.fromkeys(SQL_PATHS, service)) as server:
        yield Client(
            DownloadParams(server.url, connections=1, requests_per_s=None, timeout_s=60, tries=1, contact=None)
        )


@pytest.fixture
def ask(client, tmp_path):
    def run(query, page_rows=100, **options):
        query = user_query(query, "my.sql") if isinstance(query, str) else query
        return select_objects(query, "dr17", client, tmp_path / "pages", page_rows=page_rows, **options)

    return run


def expected_rows():
    """All objects, by objid and specobjid."""
    table = pd.concat([OBJECTS, TWICE], ignore_index=True)
    ids = list(zip(table["objid"].map(int), table["specobjid"].map(int), strict=True))
    return table.iloc[sorted(range(len(table)), key=ids.__getitem__)].reset_index(drop=True)


@pytest.mark.parametrize("page_rows", [100, 1000])
def test_pages_give_every_row_once_and_every_digit(ask, service, page_rows):
    table = ask(REFERENCE_SQL, page_rows)
    assert tuple(table.columns) == REFERENCE_COLUMNS
    columns = ["objid", "specobjid", "class", *FIELD, "plate", "mjd", "fiberid"]
    pd.testing.assert_frame_equal(table[columns], expected_rows()[columns])
    assert table["specobjid"].map(int).max() > 2**63
    assert len(service.asked) == -(-len(table) // page_rows) + 1  # the last one is empty


def test_rows_of_one_objid_on_both_sides_of_a_page_are_both_there(ask):
    whole = expected_rows()
    first = int(whole.index[whole["objid"].duplicated()][0])  # a page that ends before it
    assert len(ask(REFERENCE_SQL, page_rows=first)) == len(whole)


def test_a_service_that_caps_answers_loses_nothing(ask, service):
    service.row_cap = 60
    assert len(ask(REFERENCE_SQL, page_rows=500)) == len(expected_rows())


def test_top_is_the_number_of_rows(ask, service):
    table = ask(REFERENCE_SQL.replace("100000", "130"))
    assert table["objid"].tolist() == expected_rows()["objid"][:130].tolist()
    assert [re.match(r"SELECT TOP (\d+)", sql)[1] for sql in service.asked] == ["100", "30"]


def test_top_with_order_is_asked_as_it_is(ask, service):
    table = ask(REFERENCE_SQL.replace("100000", "150").replace(";", " ORDER BY p.ra"))
    assert table["ra"].map(float).is_monotonic_increasing
    assert len(table) == 150
    assert len(service.asked) == 1


def test_classes_are_balanced_and_share_fields(ask):
    tables, taken = [], set()
    for query in class_queries(25):
        tables.append(ask(query, page_rows=10, taken=taken))
        taken |= set(tables[-1]["objid"])
    assert [table["class"].value_counts().to_dict() for table in tables] == [{label: 25} for label in CLASSES]
    table = pd.concat(tables)
    assert table["objid"].is_unique
    n_fields = len(table[FIELD].drop_duplicates())
    random = OBJECTS.groupby("class").sample(25, random_state=1)
    assert n_fields < 0.7 * len(random[FIELD].drop_duplicates())
    galaxies, quasars = (set(map(tuple, tables[at][FIELD].to_numpy())) for at in (0, 1))
    with_quasars = set(map(tuple, OBJECTS.loc[OBJECTS["class"] == "QSO", FIELD].to_numpy()))
    assert galaxies & with_quasars <= quasars  # quasars are rarer: their fields go on where those of galaxies end
    assert table["run"].nunique() > 4


@pytest.mark.real
def test_classes_of_real_objects_share_fields_all_over_the_sky(real_data, tmp_path):
    real = with_true_ids(pd.read_csv(real_data("catalogues/Skyserver_SQL2_27_2018_6_51_39_PM.csv"), dtype=str))
    service = SqlService(real)
    with ArchiveServer({}, pages=dict.fromkeys(SQL_PATHS, service)) as server:
        client = Client(DownloadParams(server.url, 1, requests_per_s=None, timeout_s=60, tries=1, contact=None))
        tables = [select_objects(query, "dr17", client, tmp_path, page_rows=80) for query in class_queries(200)]
    table = pd.concat(tables)
    assert table["class"].value_counts().to_dict() == dict.fromkeys(CLASSES, 200)
    random = real.groupby("class").sample(200, random_state=1)
    assert len(table[FIELD].drop_duplicates()) < 0.6 * len(random[FIELD].drop_duplicates())
    assert table["run"].nunique() >= 0.8 * random["run"].nunique()
    pd.testing.assert_frame_equal(
        table.set_index("objid")[["specobjid", *FIELD]].sort_index(),
        real.set_index("objid").loc[sorted(table["objid"]), ["specobjid", *FIELD]],
    )


def test_an_object_with_two_spectra_counts_once(ask):
    tables = [ask(query, page_rows=40) for query in class_queries(10_000)]
    counts = OBJECTS["class"].value_counts()
    assert {label: len(table) for label, table in zip(CLASSES, tables, strict=True)} == counts.to_dict()
    again = ask(replace(class_queries(10_000)[0], label="others"), taken=set(tables[0]["objid"][:5]))
    assert len(again) == len(tables[0]) - 5


def test_an_interrupted_query_asks_no_page_again(ask, service, tmp_path):
    service.spoil[3] = lambda text: (500, {}, b"<html><title>Server Error</title></html>")
    with pytest.raises(DataError, match="Server Error"):
        ask(REFERENCE_SQL)
    assert len(list((tmp_path / "pages").iterdir())) == 2
    assert len(ask(REFERENCE_SQL)) == len(expected_rows())
    assert len(service.asked) == len(set(service.asked)) + 1  # only the one that failed
    n_asked = len(service.asked)
    assert len(ask(REFERENCE_SQL)) == len(expected_rows())
    assert len(service.asked) == n_asked


@pytest.mark.parametrize("style", ["json", "html", "html200", "text"])
def test_an_error_in_the_sql_is_one_line_and_not_asked_again(ask, client, service, style):
    service.error_style, client.params = style, replace(client.params, tries=3)
    with pytest.raises(
        DataError, match=r"SqlSearch: refuses the query \(Incorrect syntax near .*no such table: Objs"
    ) as caught:
        ask("SELECT * FROM Objs")
    assert "\n" not in str(caught.value)
    assert "<" not in str(caught.value)
    assert len(service.asked) == 1


@pytest.mark.parametrize("cut", [5, 30])
def test_rows_cut_in_the_middle_are_asked_again(ask, service, cut):
    """In the last cell, or before it."""
    service.spoil[2] = lambda text: text[:-cut]
    pd.testing.assert_series_equal(ask(REFERENCE_SQL)["fiberid"], expected_rows()["fiberid"])


def test_a_cut_answer_that_cannot_be_had_in_pages_is_refused(ask, service):
    service.spoil[1] = lambda text: text[:-1]
    with pytest.raises(DataError, match="stops after 149 rows; leave ORDER BY out"):
        ask(REFERENCE_SQL.replace("100000", "150").replace(";", " ORDER BY p.ra"))


def test_a_notice_of_the_maximum_of_rows_is_no_row(ask, service):
    service.spoil[1] = lambda text: text + "Maximum of 100 rows reached\n"
    assert len(ask(REFERENCE_SQL)) == len(expected_rows())


def test_a_notice_of_the_maximum_of_rows_where_no_page_follows(ask, service):
    service.spoil[1] = lambda text: "#Only the first 20 rows are shown\n" + text
    with pytest.raises(DataError, match="stops after 20 rows"):
        ask(REFERENCE_SQL.replace("100000", "20").replace(";", " ORDER BY p.ra"))


@pytest.mark.parametrize(
    ("spoil", "problem"),
    [
        (lambda text: "", r"answers no table, but a text \(empty\)"),
        (lambda text: "Busy", r"answers no table, but a text \(Busy\)"),
        (
            lambda text: (503, {}, b"<html><title>Closed</title><body><p>Until noon"),
            r"answers 503.*\(Closed: Until noon\)",
        ),
        (lambda text: "<!doctype html><title>SQL Search</title><script>x</script>hi", r"a web page \(SQL Search: hi\)"),
        (lambda text: '{"Error": 1}', "answers no table"),
        (lambda text: "x" * 200_000, r"answers no table, but a text \(x{200}\.\.\.\)"),
        (
            lambda text: '[{"Error Code": 500, "ErrorMessage": "Execution Timeout Expired."}]',
            r"refuses the query \(Execution Timeout Expired.\); try again later, or ask for less",
        ),
        (lambda text: text.replace(",301,", ",", 1), "answers 17 cells instead of 18 in row 1 of 100; try again"),
        (lambda text: text.replace("objid", "nr", 1), "answers without the column objid"),
        (lambda text: re.sub(r"\n12\d{17}", "\n1.2E+18", text), "answers '1.2E[+]18' as objid, which is no integer"),
        (lambda text: text[: text.index("\n", 10) + 30], "answers a table that is cut off"),
    ],
)
def test_what_is_no_table_of_objects_is_one_line(ask, service, tmp_path, spoil, problem):
    service.spoil = {1: spoil}
    with pytest.raises(DataError, match=problem) as caught:
        ask(REFERENCE_SQL)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "pages").exists()


def test_later_pages_are_held_against_the_first(ask, service):
    service.spoil[2] = lambda text: "#Table1\nobjid,specobjid,ra"
    with pytest.raises(DataError, match="cut off"):
        ask(REFERENCE_SQL)
    first = []
    service.spoil = {3: lambda text: first.append(text) or text, 4: lambda text: first[0]}
    with pytest.raises(DataError, match="answers the same page again"):
        ask(REFERENCE_SQL)


def test_no_rows_and_names_in_any_case():
    table, cut = read_answer("#Table1\nobjID,RA\n", "url")
    assert (list(table), len(table), cut) == (["objid", "ra"], 0, False)
    table, cut = read_answer('\ufeff#Table1\r\nobjID,name\r\n1237648704577142880,"a, b"\r\n', "url")
    assert table.to_numpy().tolist() == [["1237648704577142880", "a, b"]]
    assert not cut
