"""SDSS' SQL service on the loopback: it runs the SQL that it is sent, on SQLite tables of objects."""

import json
import re
import sqlite3
from collections.abc import Callable
from threading import Lock

import numpy as np
import pandas as pd

from deepsky.catalogue.objid import pack_objid
from deepsky.catalogue.tables import REFERENCE_COLUMNS

SQL_PATHS = ["/dr9/en/tools/search/x_sql.asp"]
SQL_PATHS += [f"/{release}/SkyServerWS/SearchTools/SqlSearch" for release in ("dr16", "dr17")]
Answer = tuple[int, dict[str, str], bytes]
REFERENCE_SQL = """
SELECT TOP 100000 p.objid,p.ra,p.dec,p.u,p.g,p.r,p.i,p.z,p.run,p.rerun,p.camcol,p.field,
  s.specobjid,s.class,s.z AS redshift,s.plate,s.mjd,s.fiberid   -- 18 columns
FROM PhotoObj AS p JOIN SpecObj AS s ON s.bestobjid = p.objid
WHERE p.u BETWEEN 0 AND 19.6 AND g BETWEEN 0 AND 20;
"""


def with_true_ids(table: pd.DataFrame) -> pd.DataFrame:
    """Give objects the ids that the survey would: objid from a running number per field, specobjid from the fibre."""
    field = ["run", "camcol", "field"]
    numbers = table.astype(dict.fromkeys([*field, "plate", "mjd", "fiberid"], np.int64))
    parts = {name: numbers[name] for name in field}
    objid = pack_objid(rerun=301, number=numbers.groupby(field).cumcount() + 1, **parts)
    plates = zip(numbers["plate"], numbers["mjd"], numbers["fiberid"], strict=True)
    specobjid = [(plate << 50) | (fibre << 38) | ((mjd - 50000) << 24) | (26 << 10) for plate, mjd, fibre in plates]
    return table.assign(objid=objid.astype(str), specobjid=[str(number) for number in specobjid])


def synthetic_objects(n_fields: int = 120, seed: int = 3) -> pd.DataFrame:
    """Draw objects of REFERENCE_COLUMNS with true ids, text; galaxies are common, quasars rare, fields shuffled."""
    rng = np.random.default_rng(seed)
    rows = []
    for number in rng.permutation(n_fields):
        run, camcol, field = 752 + 173 * (number % 7), number % 6 + 1, 11 + number // 3
        for label in rng.choice(["GALAXY", "STAR", "QSO"], size=rng.integers(1, 9), p=[0.5, 0.4, 0.1]):
            magnitudes = rng.uniform(15, 19, 5).round(5)
            place = (round(rng.uniform(0, 360), 8), round(rng.uniform(-9, 60), 8))
            fibre = (266 + 100 * number, 51600 + number, len(rows) % 1000 + 1)  # some plates need 64 bits
            rows.append(("", *place, *magnitudes, run, 301, camcol, field, "", label, 0.1, *fibre))
    return with_true_ids(pd.DataFrame(rows, columns=list(REFERENCE_COLUMNS))).astype(str)


class SqlService:
    """A page for `ArchiveServer`.

    Attributes:
        asked: every statement, in order.
        row_cap: rows that an answer holds at most, whatever TOP says.
        error_style: how a wrong statement is answered: json, html, html200 or text.
        spoil: the number of a request, from 1 -> what becomes of its sound answer.
    """

    def __init__(self, objects: pd.DataFrame) -> None:
        self.asked: list[str] = []
        self.row_cap = 500_000
        self.error_style = "json"
        self.spoil: dict[int, Callable[[str], str | Answer]] = {}
        self._lock = Lock()
        self._database = sqlite3.connect(":memory:", check_same_thread=False)
        photo = objects[list(REFERENCE_COLUMNS[:12])].drop_duplicates("objid")
        spectra = objects[["objid", *REFERENCE_COLUMNS[12:]]].rename(columns={"objid": "bestobjid", "redshift": "z"})
        # SQLite's integers end at 2^63, where real specobjids go on: text of one width has their order.
        spectra = spectra.assign(specobjid=spectra["specobjid"].str.zfill(20))
        for name, table in (("PhotoObj", photo), ("SpecObj", spectra)):
            text = ("class", "specobjid")
            columns = ", ".join(f"{column} {'TEXT' if column in text else 'NUMERIC'}" for column in table)
            self._database.execute(f"CREATE TABLE {name} ({columns})")
            marks = ", ".join("?" * len(table.columns))
            self._database.executemany(f"INSERT INTO {name} VALUES ({marks})", table.to_numpy().tolist())
        self._database.execute("CREATE INDEX ids ON PhotoObj (objid)")

    def __call__(self, query: dict[str, str], body: bytes) -> Answer:
        with self._lock:
            assert query["format"] == "csv"
            self.asked.append(query["cmd"])
            try:
                text = self._run(query["cmd"])
            except sqlite3.Error as error:
                return self._complain(str(error))
            spoilt = self.spoil.get(len(self.asked), str)(text)
        return spoilt if isinstance(spoilt, tuple) else (200, {"Content-Type": "text/plain"}, spoilt.encode())

    def _run(self, sql: str) -> str:
        top = re.match(r"(?is)SELECT\s+TOP (\d+) (.*)", sql)
        sql = f"SELECT {top[2]} LIMIT {top[1]}" if top else sql
        sql = re.sub(r"(specobjid >=?) (\d+)", lambda found: f"{found[1]} '{found[2]:0>20}'", sql)
        cursor = self._database.execute(sql)
        names = [column[0] for column in cursor.description]
        table = pd.DataFrame(cursor.fetchmany(self.row_cap), columns=names, dtype=object)
        for name in table.columns[table.columns.str.lower() == "specobjid"]:
            table[name] = table[name].str.lstrip("0")
        return "#Table1\n" + table.to_csv(index=False, lineterminator="\n")

    def _complain(self, message: str) -> Answer:
        message = f"Incorrect syntax near '{message}'."
        phrase = f"SQL returned the following error: {message}"
        page = f"<html><head><title>Skyserver Error</title></head><body><h2>An error occured</h2>{phrase}</body></html>"
        return {
            "json": (400, {}, json.dumps({"Error Code": 400, "Error Message": message}).encode()),
            "html": (500, {"Content-Type": "text/html"}, page.encode()),
            "html200": (200, {"Content-Type": "text/html"}, page.encode()),
            "text": (200, {}, f"ERROR\n{phrase}".encode()),
        }[self.error_style]
