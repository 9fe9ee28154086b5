import hashlib
import json
import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from deepsky.archives.params import ArchiveParams
from deepsky.archives.wanted import sdss_files
from deepsky.catalogue.objects import describe, read_real_objects
from deepsky.catalogue.tables import REFERENCE_COLUMNS, read_objects
from deepsky.errors import DataError
from deepsky.simulation.params import CatalogueParams
from deepsky.stages import catalogue as stage
from tests.sql_service import synthetic_objects, with_true_ids

REAL_TABLE = "catalogues/Skyserver_SQL2_27_2018_6_51_39_PM.csv"
OBJECTS = synthetic_objects(40).reset_index(drop=True)
SDSS = CatalogueParams("sdss", seed=1, n_fields=1, n_per_class_per_field=1)
ARCHIVE = ArchiveParams()


@pytest.fixture
def read(tmp_path):
    def run(table, release="dr17", head=""):
        (tmp_path / "catalogue.csv").write_text(head + table.to_csv(index=False))
        return read_real_objects(tmp_path / "catalogue.csv", release)

    return run


def changed(row, **cells):
    table = OBJECTS.copy()
    for column, cell in cells.items():
        table.loc[row, column] = cell
    return table


def test_sound_objects_are_named_by_objid_and_kept_cell_for_cell(read, capsys):
    mixed = OBJECTS.rename(columns={"objid": "objID", "class": "CLASS"}).assign(extra="x")
    table = read(mixed[mixed.columns[::-1]], head="\ufeff#Table1\n")
    assert tuple(table.columns) == ("id", *REFERENCE_COLUMNS)
    assert (table["id"] == OBJECTS["objid"]).all()
    pd.testing.assert_frame_equal(table[list(REFERENCE_COLUMNS)].astype(str), OBJECTS)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("table", "problem"),
    [
        (OBJECTS.drop(columns=["run", "field"]), "has no column run, field; select the columns of the reference query"),
        (changed(4, ra="12h30m"), r"object 5 \(objid '\d{19}'\) has '12h30m' in column 'ra', which is no number"),
        (changed(4, dec=""), r"object 5 .* has '' in column 'dec', which is no number"),
        (changed(0, ra="360.5"), r"object 1 .* has ra '360.5'; right ascension is 0 to 360"),
        (changed(0, dec="-91"), "has dec '-91'; declination is -90 to 90"),
        (changed(2, camcol="7"), "object 3 .* has camcol '7'; camcol is an integer from 1 to 6"),
        (changed(2, field="0"), "has field '0'; field is an integer > 0"),
        (changed(2, run="-1"), "has run '-1'; run is an integer > 0"),
        (changed(2, run="752.5"), "has run '752.5'; run is an integer > 0"),
        (changed(2, **{"class": " "}), "has class ''; mend it"),
        (changed(3, rerun="157"), "column 'rerun' holds reruns 157, 301: mixed releases; DR8 and all later"),
        (OBJECTS.assign(rerun="40"), "column 'rerun' has 40; DR8 and all later"),
        (changed(3, objid="12"), "object 4 .* has objid '12'; an objid has 18 or 19 digits"),
        (changed(3, objid="9999999999999999999"), "has objid '9999999999999999999'; an objid has"),
        (
            OBJECTS.assign(objid=OBJECTS["objid"].iloc[::-1].to_numpy()),
            r"object 1 .* has run '?\d+'?, camcol \S+, field \S+; its objid names another field: the row is shifted",
        ),
        (changed(3, objid=OBJECTS["objid"][2], run="99"), "names another field"),
    ],
)
def test_what_is_wrong_is_one_line_with_its_row(read, table, problem):
    with pytest.raises(DataError, match=problem) as caught:
        read(table)
    assert "catalogue.csv: " in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "np." not in str(caught.value)


def test_repeated_rows_of_one_object_count_once(read, capsys):
    again = OBJECTS.iloc[[5, 9]].assign(specobjid="1024")
    pd.testing.assert_frame_equal(read(pd.concat([OBJECTS, again])), read(OBJECTS))
    assert "2 rows repeat an object and are left out" in capsys.readouterr().err


@pytest.mark.parametrize("change", [{"class": "UNKNOWN"}, {"ra": "1.5"}])
def test_an_object_that_is_two_things_is_refused(read, change):
    with pytest.raises(DataError, match=f"object {OBJECTS['objid'][5]} occurs more than once, as .* keep one row"):
        read(pd.concat([OBJECTS, OBJECTS.iloc[[5]].assign(**change)]))


ROUNDINGS = {
    "spreadsheet": lambda ids: ids.map(lambda text: f"{int(text):.14E}"),
    "spreadsheet as number": lambda ids: ids.map(lambda text: f"{float(f'{int(text):.14e}'):.0f}"[:15] + "0000"),
    "float": lambda ids: ids.map(lambda text: repr(float(text))),
    "float as integer": lambda ids: ids.map(lambda text: str(int(float(text)))),
    "float with point": lambda ids: ids.map(lambda text: f"{float(text):.1f}"),
    "script": lambda ids: ids.map(lambda text: str(round(int(text), -2))),
}


@pytest.mark.parametrize("rounding", ROUNDINGS)
def test_rounded_objids_are_detected_and_not_passed_on(read, capsys, rounding):
    table = read(OBJECTS.assign(objid=ROUNDINGS[rounding](OBJECTS["objid"])))
    assert (table["id"] == OBJECTS["specobjid"]).all()
    assert (table["specobjid"] == OBJECTS["specobjid"]).all()
    assert (table["objid"] == "").all()
    said = capsys.readouterr().err
    assert f"{len(OBJECTS)} of {len(OBJECTS)} objids have been rounded" in said
    assert said.endswith("objects are named by specobjid\n")
    assert said.count("\n") == 1


def test_rounded_objids_and_specobjids_leave_the_name_of_the_spectrum(read):
    ruined = {name: ROUNDINGS["spreadsheet"](OBJECTS[name]) for name in ("objid", "specobjid")}
    table = read(OBJECTS.assign(**ruined))
    numbers = OBJECTS[["plate", "mjd", "fiberid"]].map(int).to_numpy().tolist()
    assert table["id"].tolist() == [f"{plate:04d}-{mjd}-{fibre:04d}" for plate, mjd, fibre in numbers]
    assert (table[["objid", "specobjid"]] == "").all(axis=None)
    with pytest.raises(DataError, match="has fiberid ''; export the table again with ids as text"):
        read(OBJECTS.assign(**ruined, fiberid=""))


def test_sound_objids_among_rounded_ones_stay(read, capsys):
    table = read(changed(3, objid=ROUNDINGS["spreadsheet"](OBJECTS["objid"])[3]))
    assert "1 of" in capsys.readouterr().err
    assert (table["id"] == OBJECTS["specobjid"]).all()
    assert table["objid"].tolist() == [*OBJECTS["objid"][:3], "", *OBJECTS["objid"][4:]]


def test_sound_objids_among_rounded_ones_are_checked_still(read):
    table = changed(3, objid=ROUNDINGS["spreadsheet"](OBJECTS["objid"])[3])
    table.loc[8, "field"] = "999"
    with pytest.raises(DataError, match=r"object 9 .* names another field"):
        read(table)


def test_a_sound_id_that_ends_in_zeros_is_no_rounded_one(read, capsys):
    row = OBJECTS.iloc[[0]]
    numbers = np.arange(1, 4000) + (int(row["objid"].iloc[0]) & ~0xFFFF)
    ends = str(numbers[numbers % 1000 == 0][0])
    table = read(pd.concat([row.assign(objid=ends), OBJECTS.iloc[5:]]))
    assert table["id"][0] == ends
    assert capsys.readouterr().err == ""


def test_a_query_of_another_release_is_refused(read, tmp_path):
    read(OBJECTS)
    digest = hashlib.sha256((tmp_path / "catalogue.csv").read_bytes()).hexdigest()
    (tmp_path / "query.json").write_text(json.dumps({"release": "dr16", "sha256": digest}))
    read(OBJECTS, "dr16")
    with pytest.raises(DataError, match="mixed releases: its objects are of dr16, but"):
        read(OBJECTS, "dr17")
    read(OBJECTS[:30], "dr17")  # another table than the one that query.json tells of
    (tmp_path / "query.json").write_text("[]")
    with pytest.raises(DataError, match=r"query.json: is not what deepsky query writes; delete it"):
        read(OBJECTS)


def test_stage_writes_the_real_objects(tmp_path, capsys):
    with pytest.raises(DataError, match=r"catalogue.csv: is not there, .*; run deepsky query, or copy a CSV"):
        stage.run(SDSS, "dr17", query=tmp_path, out=tmp_path / "out.csv")
    OBJECTS.to_csv(tmp_path / "catalogue.csv", index=False)
    stage.run(SDSS, "dr17", query=tmp_path, out=tmp_path / "out.csv")
    table = pd.read_csv(tmp_path / "out.csv", dtype=str)
    assert list(table.columns) == ["id", *REFERENCE_COLUMNS]
    pd.testing.assert_frame_equal(table.drop(columns="id"), OBJECTS)
    assert capsys.readouterr().out.splitlines() == describe(table)


@pytest.mark.real
def test_a_table_of_which_a_part_is_rounded(tmp_path, capsys):
    """A float's digits leave the field's bits alone, so only their number of common factors tells."""
    table = synthetic_objects()
    some = table.index % 5 > 0
    table.loc[some, "objid"] = [str(int(float(objid))) for objid in table.loc[some, "objid"]]
    table.drop_duplicates("objid").to_csv(tmp_path / "catalogue.csv", index=False)
    objects = read_real_objects(tmp_path / "catalogue.csv", "dr17")
    assert (objects["id"] == objects["specobjid"]).all()
    assert "objids have been rounded" in capsys.readouterr().err


def test_real_table_with_rounded_ids(real_data, tmp_path, capsys):
    table = pd.read_csv(real_data(REAL_TABLE), dtype=str)
    table.to_csv(tmp_path / "catalogue.csv", index=False)
    stage.run(SDSS, "dr14", query=tmp_path, out=tmp_path / "out.csv")
    said = capsys.readouterr()
    assert said.out.splitlines() == [
        "4998 GALAXY, 850 QSO, 4152 STAR",
        "10000 objects in 3489 fields; frames a band: 3489 (about 10 GB) instead of 10000 (30 GB)",
    ]
    assert "10000 of 10000 objids have been rounded" in said.err
    objects = read_objects(
        tmp_path / "out.csv", id_column="id", label_column="class", classes=("GALAXY", "QSO", "STAR")
    )
    assert objects["id"][0] == "3306-54922-0491"
    assert objects["objid"].isna().all()
    read_back = pd.read_csv(tmp_path / "out.csv", dtype=str)
    kept = [name for name in REFERENCE_COLUMNS if name not in ("objid", "specobjid")]
    pd.testing.assert_frame_equal(read_back[kept], table[kept])


@pytest.mark.real
@pytest.mark.parametrize("sound_ids", [True, False])
def test_every_file_of_the_real_table_has_one_address(real_data, tmp_path, sound_ids):
    table = pd.read_csv(real_data(REAL_TABLE), dtype=str)
    table = with_true_ids(table) if sound_ids else table
    table.to_csv(tmp_path / "catalogue.csv", index=False)
    stage.run(SDSS, "dr17", query=tmp_path, out=tmp_path / "out.csv")
    objects = read_objects(tmp_path / "out.csv", id_column="id", label_column=None, classes=())
    wanted = sdss_files(objects, replace(ARCHIVE, release="dr17", bands=("u", "g", "r", "i", "z"), sdss_jpg=True))
    frames, jpegs = ([file for file in wanted if file.folder == folder] for folder in ("frames", "sdss_jpg"))
    assert (len(frames), len(jpegs), len(wanted)) == (17445, 10000, 27445)
    assert len({file.path for file in wanted}) == len({file.path.lower() for file in wanted}) == 27445
    assert len({file.url for file in frames}) == 17445
    frame = re.compile(
        r"https://data\.sdss\.org/sas/dr17/eboss/photoObj/frames/301/(\d+)/([1-6])/"
        r"frame-([ugriz])-(\d{6})-\2-(\d{4})\.fits\.bz2"
    )
    for file in frames:
        found = frame.fullmatch(file.url)
        assert found
        assert int(found[1]) == int(found[4])
        assert file.path == "frames/" + file.url.split("/301/")[1]
    cutout = re.compile(
        r"https://skyserver\.sdss\.org/dr17/SkyServerWS/ImgCutout/getjpeg"
        r"\?ra=\d+(\.\d+)?&dec=-?\d+(\.\d+)?(e-\d+)?&scale=0\.4&width=240&height=240&opt="
    )
    assert all(cutout.fullmatch(file.url) for file in jpegs)
    name = r"sdss_jpg/\d{19}\.jpg" if sound_ids else r"sdss_jpg/\d{4}-\d{5}-\d{4}\.jpg"
    assert all(re.fullmatch(name, file.path) for file in jpegs)
