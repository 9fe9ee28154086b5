import bz2
import gzip
import os

import numpy as np
import pandas as pd
import pytest
from astropy import units
from astropy.table import MaskedColumn, Table

from deepsky.catalogue.table_files import read_texts
from deepsky.catalogue.tables import read_objects, read_table
from deepsky.errors import ConfigError, DataError
from tests.conftest import REAL_DATA

CSV = 'id,ra,class\n1237648704577142784,150.01219171541607,GALAXY\n1237648704577142785,150.5,"STAR, F5"\n'
IDS = ["1237648704577142784", "1237648704577142785"]


def astropy_table():
    table = Table({"id": [int(each) for each in IDS], "ra": [150.01219171541607, 150.5]})
    table["class"] = ["GALAXY", "STAR, F5"]
    table["spectrum"] = MaskedColumn([1237648704577142786, 5], mask=[False, True])  # as floats it would lose digits
    table["fluxes"] = np.zeros((2, 3))
    return table


def write_parquet(path):
    table = astropy_table()
    table.remove_column("fluxes")
    table.to_pandas(use_nullable_int=True).to_parquet(path)


WAYS = {
    "comma": lambda path: path.write_text(CSV),
    "with a mark, blanks and remarks": lambda path: path.write_text(
        "# mine\n\nid, ra , class\n" + CSV.partition("\n")[2].replace(",", " , "), encoding="utf-8-sig"
    ),
    "semicolon": lambda path: path.write_text(CSV.replace(",", ";").replace("STAR;", "STAR,")),
    "tab": lambda path: path.write_text(CSV.replace(",", "\t").replace("STAR\t", "STAR,")),
    "bar": lambda path: path.write_text(CSV.replace(",", "|").replace("STAR|", "STAR,")),
    "blanks": lambda path: path.write_text("  " + CSV.replace(",", "   ").replace("STAR   ", "STAR,")),
    "Excel's Unicode text": lambda path: path.write_text(CSV.replace(",", "\t").replace("STAR\t", "STAR,"), "utf-16"),
    "gzip": lambda path: path.write_bytes(gzip.compress(CSV.encode())),
    "bzip2": lambda path: path.write_bytes(bz2.compress(CSV.encode())),
    "FITS": lambda path: astropy_table().write(path, format="fits"),
    "VOTable": lambda path: astropy_table().write(path, format="votable"),
    "ECSV": lambda path: astropy_table().write(path, format="ascii.ecsv"),
    "Parquet": write_parquet,
}


@pytest.mark.parametrize("way", WAYS)
def test_a_table_of_any_form_gives_the_same_texts(tmp_path, way):
    path = tmp_path / "table"  # no suffix: the content tells
    WAYS[way](path)
    table = read_texts(path)
    assert table["id"].tolist() == IDS
    assert table["ra"].tolist() == ["150.01219171541607", "150.5"]
    assert [each.replace("  ", " ").replace(" ,", ",") for each in table["class"]] == ["GALAXY", "STAR, F5"]
    assert table.get("spectrum", pd.Series([IDS[0][:-1] + "6", ""])).tolist() == ["1237648704577142786", ""]
    assert "fluxes" not in table


def test_angles_come_in_degrees(tmp_path):
    table = Table({"ra": [10.5], "dec": [0.5], "size": [3.0], "exposure": [2.0]})
    for name, unit in {"ra": "hourangle", "dec": "rad", "size": "arcsec", "exposure": "h"}.items():
        table[name].unit = units.Unit(unit)
    table.write(tmp_path / "table.ecsv")
    assert read_texts(tmp_path / "table.ecsv").astype(float).loc[0].tolist() == pytest.approx(
        [157.5, np.degrees(0.5), 3, 2], rel=1e-15
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "cannot be read as CSV"),
        (b"id,class\n1,STAR,3\n", "cannot be read as CSV"),
        (b"PK\x03\x04 a workbook \xff", "cannot be read as CSV .*give a table: CSV with a header line, FITS, VOT"),
        (b"SIMPLE  = nonsense", "cannot be read as FITS"),
        (b"PAR1", "cannot be read as Parquet"),
        (b"# %ECSV 1.0\n", "cannot be read as ECSV"),
        (b"<?xml version='1.0'?><VOTABLE>", "cannot be read as VOTable"),
        (b"\x1f\x8b\x08", "cannot be read "),
        (b"id,class , class\n1,STAR,STAR\n", "has two columns 'class'"),
        (b"id,class\n", "holds no rows"),
        (b"Id,ID,class\n1,2,STAR\n", "column 'id' may be Id or ID"),
        (b"objid,class\n1,STAR\n", "column 'id' is missing; its columns are objid, class"),
    ],
)
def test_what_is_no_table_is_one_line(tmp_path, content, message):
    path = tmp_path / "table.csv"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message) as error:
        read_table(path, required=("id",))
    assert "\n" not in str(error.value)


def test_what_is_no_file_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for place, message in ((tmp_path / "pipe", "is no file"), (tmp_path, "is no file"), (tmp_path / "a", "not exist")):
        with pytest.raises(DataError, match=message):
            read_texts(place)


def test_names_of_columns_may_differ_by_case(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("ID,CLASS,RA\n7,STAR,1.5\n")
    objects = read_objects(path, id_column="id", label_column="class", classes=("STAR",))
    assert objects.to_dict("list") == {"id": ["7"], "label": ["STAR"], "RA": [1.5]}
    with pytest.raises(ConfigError, match="column 'ID' is to be both id and class"):
        read_objects(path, id_column="ID", label_column="ID", classes=())


def read_ids(path, ids):
    path.write_text("\n".join(["id", *ids, ""]))
    return read_objects(path, id_column="id", label_column=None, classes=())["id"].tolist()


def test_ids_that_were_floats(tmp_path, capsys):
    path = tmp_path / "table.csv"
    assert read_ids(path, ["101756.0", "101997.0"]) == ["101756", "101997"]
    assert "ids are written like 101756.0, and read as 101756" in capsys.readouterr().err
    assert read_ids(path, ["101756.0", "m31.0"]) == ["101756.0", "m31.0"]
    true = [str(1237648704577142784 + 65537 * number) for number in range(1, 5)]
    assert read_ids(path, true) == true
    for lost in ([f"{int(float(each))}" for each in true], [f"{each[:15]}0000" for each in true]):
        with pytest.raises(DataError, match="only the first 15 digits can be right"):
            read_ids(path, lost)


@pytest.mark.real
@pytest.mark.parametrize("name", ["22-float-id", "41-excel-id", "30-space-comma"])
def test_tables_that_people_have(name):
    path = REAL_DATA.parent / "cases" / name / "labels.csv"
    if not path.exists():
        pytest.skip(f"needs {path}")
    classes = ("spiral", "edge_on", "round", "in_between", "cigar")
    if name == "41-excel-id":
        with pytest.raises(DataError, match="only the first 15 digits"):
            read_objects(path, id_column="GalaxyID", label_column="cls", classes=classes)
    else:
        assert len(read_objects(path, id_column="GalaxyID", label_column="cls", classes=classes)) == 70
