"""Ask SDSS which objects there are, and keep the answer as data/query/catalogue.csv."""

import hashlib
import json
import shutil
from datetime import UTC, datetime
from pathlib import Path

import click
import pandas as pd

from deepsky.archives.addresses import QueryRelease, sql_url
from deepsky.archives.http import Client
from deepsky.archives.params import DownloadParams
from deepsky.archives.skyserver import PAGE_ROWS, select_objects
from deepsky.catalogue.objects import describe, read_real_objects, reference_names, require_reference_columns
from deepsky.catalogue.queries import FIELD_ORDER, Query, class_queries, reference_query, user_query
from deepsky.catalogue.tables import REFERENCE_COLUMNS
from deepsky.commands.versioning import dvc_add
from deepsky.errors import ConfigError, DataError
from deepsky.files import whole_file


def run(
    sql: Path | None,
    objects_per_class: int | None,
    release: QueryRelease,
    params: DownloadParams,
    *,
    out: Path = Path("data/query"),
    page_rows: int = PAGE_ROWS,
) -> None:
    """Query the objects, write catalogue.csv and query.json, and version the table in a DVC project.

    Interrupted, it keeps the pages that came, and the same command goes on after them.

    Args:
        sql: file with one SELECT of the reference query's columns; or None.
        objects_per_class: how many galaxies, quasars and stars of the reference query; or None. Both None: the
            reference query itself.
        release: data release to ask.
        params: section ``download`` of params.yaml.
        out: folder to write to.
        page_rows: rows to ask for at a time.

    Raises:
        ConfigError: both selections, a number out of range, SQL that is not one SELECT.
        DataError: the service refuses or fails; a table of the user's is in the way; the answer is no catalogue.
    """
    queries = _queries(sql, objects_per_class)
    target = out / "catalogue.csv"
    _spare_own_table(target, out / "query.json")
    pages = out / ".pages" / _digest("\n".join([release, *(query.sql for query in queries)]).encode())[:16]
    try:
        table = _ask(queries, release, Client(params), pages, page_rows)
        objects = _write(table, queries, release, out)
        shutil.rmtree(pages)
        if not any(pages.parent.iterdir()):
            pages.parent.rmdir()
    except OSError as error:
        raise DataError(
            error.filename or out, f"cannot be written ({error.strerror})", "free the disk or choose another folder"
        ) from error
    dvc_add([target])
    for line in describe(objects):
        click.echo(line)
    click.echo(f"wrote {target}; set catalogue.survey: sdss in params.yaml, then make repro")


def _queries(sql: Path | None, objects_per_class: int | None) -> list[Query]:
    if sql is not None and objects_per_class is not None:
        raise ConfigError("--sql", "and --objects-per-class exclude each other", "give one of them")
    if objects_per_class is not None:
        return class_queries(objects_per_class)
    if sql is None:
        return [reference_query()]
    try:
        return [user_query(sql.read_text(encoding="utf-8-sig"), sql)]
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ConfigError(sql, f"cannot be read ({reason})", "give a text file with one SELECT") from error


def _spare_own_table(target: Path, origin: Path) -> None:
    """Refuse to overwrite a table that no query wrote: there may be no other copy."""
    if not target.exists():
        return
    try:
        known = json.loads(origin.read_text())["sha256"] == _digest(target.read_bytes())
    except (OSError, ValueError, KeyError, TypeError):
        known = False
    if not known:
        raise DataError(target, "is not what deepsky query wrote", "move your table away first")


def _ask(queries: list[Query], release: QueryRelease, client: Client, pages: Path, page_rows: int) -> pd.DataFrame:
    """Ask all queries; give one table, the reference query's columns first."""
    tables, taken = list[pd.DataFrame](), set[str]()
    for query in queries:
        table = select_objects(query, release, client, pages, taken=taken, page_rows=page_rows)
        if query.distinct:
            taken.update(table["objid"])
            if query.limit is not None and len(table) < query.limit:
                click.echo(
                    f"{query.label}: there are only {len(table)} of the {query.limit} objects asked for", err=True
                )
        tables.append(table)
    table = pd.concat(tables, ignore_index=True)
    table = table.rename(columns=reference_names(table)).drop(columns=FIELD_ORDER, errors="ignore")
    require_reference_columns(table, sql_url(release))
    if table.empty:
        raise DataError(sql_url(release), "has no object of that kind", "ask for others")
    return table[[*REFERENCE_COLUMNS, *(column for column in table if column not in REFERENCE_COLUMNS)]]


def _write(table: pd.DataFrame, queries: list[Query], release: QueryRelease, out: Path) -> pd.DataFrame:
    """Write the table and what was asked, if the stage catalogue can use it; return its objects."""
    with whole_file(out / "catalogue.csv") as csv, whole_file(out / "query.json") as origin:
        table.to_csv(csv, index=False, lineterminator="\n")
        try:
            objects = read_real_objects(csv, release)
        except DataError as error:
            raise DataError("the answer", error.problem, f"ask otherwise, or: {error.remedy}") from error
        facts = {
            "release": release,
            "service": sql_url(release),
            "sql": [query.sql for query in queries],
            "limits": [query.limit for query in queries],
            "rows": len(table),
            "sha256": _digest(csv.read_bytes()),
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        origin.write_text(json.dumps(facts, indent=2) + "\n")
    return objects


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
