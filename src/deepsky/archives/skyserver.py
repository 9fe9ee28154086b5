"""Ask SDSS' SQL service: whole answers or one line, in pages that are kept until all are there."""

import csv
import html
import io
import json
import re
from collections.abc import Collection, Mapping
from pathlib import Path

import click
import pandas as pd

from deepsky.archives.addresses import QueryRelease, sql_url
from deepsky.archives.http import Client, HTTPAnswer
from deepsky.catalogue.queries import Query, page_sql
from deepsky.errors import DataError
from deepsky.files import whole_file

PAGE_ROWS = 50_000
QUERIES_PER_S = 1.0  # the service allows 60 a minute
QUERY_TIMEOUT_S = 600.0  # that long it lets a query run, and sends nothing meanwhile
_SQL_ERROR = re.compile(r"SQL returned the following error(?: message)?[:\s]*(.+)", re.IGNORECASE | re.DOTALL)
_ROW_NOTICE = re.compile(r"(?=.*\brows?\b).*\b(max|limit|truncated|only)", re.IGNORECASE)  # "maximum of rows reached"
_TIMEOUT = re.compile(r"time-?out|timed out", re.IGNORECASE)


def select_objects(
    query: Query,
    release: QueryRelease,
    client: Client,
    pages: Path,
    *,
    taken: Collection[str] = (),
    page_rows: int = PAGE_ROWS,
) -> pd.DataFrame:
    """Get all rows of a query, in pages where it has keys.

    Args:
        query: what to ask.
        release: of which data release.
        client: how to ask.
        pages: folder, of this SQL and release alone, that keeps the pages which came; a later call goes on after them.
        taken: objids to leave out, for a query of distinct objects.
        page_rows: rows to ask for at a time.

    Returns:
        The answer's columns as text, cell for cell; names in lower case, as SQL has no case; rows in the order of the
        keys. No rows: the columns alone.

    Raises:
        DataError: the service refuses the query, does not answer, or answers something else than whole rows.
        OSError: a page cannot be kept.
    """
    url, known, tables = sql_url(release), set(taken), list[pd.DataFrame]()
    n_rows, last = 0, None
    while query.limit is None or n_rows < query.limit:
        path = pages / f"{query.label}-{len(tables):06d}.csv"
        if path.exists():
            page = pd.read_csv(path, dtype=str, keep_default_na=False)
        else:
            wanted = page_rows if query.limit is None else min(page_rows, query.limit - n_rows)
            page = _ask_page(query, last, wanted, url, client) if query.keys else _ask_at_once(query, url, client)
            with whole_file(path) as temporary:
                page.to_csv(temporary, index=False, lineterminator="\n")
        fresh = page
        if query.distinct:
            fresh = page.drop_duplicates("objid")
            fresh = fresh[~fresh["objid"].isin(known)]
            known.update(fresh["objid"])
        if query.limit is not None:
            fresh = fresh.head(query.limit - n_rows)  # pages kept of a larger limit hold more
        tables.append(fresh)
        n_rows += len(fresh)
        click.echo(f"{query.label}: {n_rows} rows", err=True)
        if page.empty or not query.keys:  # a short page is not the end: the service may give fewer rows than asked
            break
        last = page.iloc[-1]
    return pd.concat(tables, ignore_index=True)


def _ask_at_once(query: Query, url: str, client: Client) -> pd.DataFrame:
    page, cut = _ask(query.sql, url, client)
    if cut:
        raise DataError(url, f"stops after {len(page)} rows", "leave ORDER BY out: the answer comes in pages then")
    return page


def _ask_page(query: Query, last: pd.Series | None, n_rows: int, url: str, client: Client) -> pd.DataFrame:
    """Ask for the rows after the last one."""
    after = None if last is None else {key: str(last[key]) for key in query.keys}
    page, cut = _ask(page_sql(query, after, n_rows), url, client)
    missing = [key for key in query.keys if key not in page]
    if missing:
        raise DataError(url, f"answers without the column {missing[0]}", "select it under that name")
    if (page.empty and cut) or (last is not None and list(page) != list(last.index)):
        raise DataError(url, "answers a table that is cut off", "try again: the pages that came are kept")
    for key in (key for key in query.keys if key != "specobjid"):
        odd = page.loc[~page[key].str.fullmatch(r"\d+"), key]
        if len(odd):
            raise DataError(url, f"answers {odd.iloc[0]!r} as {key}, which is no integer", "select it as it is")
    if after is not None and len(page) and _place(page.iloc[0], query) <= _place(after, query):
        raise DataError(url, "answers the same page again", "ask a service that keeps WHERE and ORDER BY")
    return page


def _place(row: Mapping[str, str] | pd.Series, query: Query) -> list[int]:
    """Say where a row stands in the order of the keys; an absent specobjid comes first."""
    return [int(row[key]) if row[key].isdecimal() else -1 for key in query.keys]


def _ask(sql: str, url: str, client: Client) -> tuple[pd.DataFrame, bool]:
    """Ask one statement; return its rows and whether the service stopped before the last one."""
    try:
        text = client.ask(
            url,
            query={"cmd": sql, "format": "csv"},
            requests_per_s=QUERIES_PER_S,
            timeout_s=QUERY_TIMEOUT_S,
            final=lambda body: bool(_sql_message(body)),
        )
    except HTTPAnswer as answer:
        raise _refusal(answer.body, url, f"answers {answer.status}") from answer
    return read_answer(text, url)


def read_answer(text: str, url: str) -> tuple[pd.DataFrame, bool]:
    """Read the service's CSV.

    Args:
        text: the answer.
        url: names the service in errors.

    Returns:
        Columns of text, and whether rows are missing at the end: the service says that it reached its maximum, or the
        last row is cut (it is left out then).

    Raises:
        DataError: an error message, a web page, or rows that do not have the header's cells.
    """
    lines = list(io.StringIO(text.lstrip("\ufeff").lstrip()))
    comments = [line for line in lines if line.startswith("#")]
    try:
        rows = [row for row in csv.reader(line for line in lines if not line.startswith("#")) if row]
    except csv.Error as error:  # a cell of more than 131,072 characters
        raise _refusal(text, url, "answers no table") from error
    if not rows or not _is_header(rows[0]):
        raise _refusal(text, url, "answers no table")
    cut = any(_ROW_NOTICE.search(line) for line in comments)
    header, *rows = rows
    while rows and len(rows[-1]) == 1 < len(header) and _ROW_NOTICE.search(rows[-1][0]):
        rows, cut = rows[:-1], True
    if rows and not text.endswith("\n") and not cut:
        cut = True
        if len(rows) > 1 or len(rows[-1]) < len(header):
            rows.pop()  # its last cell, 3, may have been 321; the next page has it again
    for number, row in enumerate(rows, start=1):
        if len(row) != len(header):
            raise DataError(
                url, f"answers {len(row)} cells instead of {len(header)} in row {number} of {len(rows)}", "try again"
            )
    names = [name.strip().lower() for name in header]
    return pd.DataFrame(rows, columns=names, dtype=str), cut


def _is_header(row: list[str]) -> bool:
    """Tell column names from the first line of a message."""
    return len(row) > 1 and all(re.fullmatch(r"\s*\w+\s*", name) for name in row)


def _refusal(body: str, url: str, otherwise: str) -> DataError:
    """Make one line of whatever the service says instead of rows."""
    message = _sql_message(body)
    if message:
        remedy = "try again later, or ask for less" if _TIMEOUT.search(message) else "mend the SQL"
        return DataError(url, f"refuses the query ({_short(message)})", remedy)
    title = re.search(r"<title[^>]*>(.*?)</title>", body, re.IGNORECASE | re.DOTALL)
    said = ": ".join(filter(None, [html.unescape(title[1]).strip() if title else "", _short(_plain(body))]))
    page = "a web page" if body.lstrip().startswith("<") else "a text"
    return DataError(url, f"{otherwise}, but {page} ({said or 'empty'})", "try again later; see whether its site is up")


def _sql_message(body: str) -> str:
    """Find what the database says of the SQL, in text, HTML or JSON; empty where something else is the matter."""
    message = _json_message(body)
    found = _SQL_ERROR.search(message or _plain(body))
    return found[1] if found else message


def _json_message(body: str) -> str:
    """Find the message in {"Error Code": 400, "Error Message": "..."}, or in a list of such."""
    try:
        answer = json.loads(body)
    except ValueError:
        return ""
    for part in answer if isinstance(answer, list) else [answer]:
        for key, value in part.items() if isinstance(part, dict) else ():
            if re.fullmatch(r"(error ?)?message", key, re.IGNORECASE):
                return str(value)
    return ""


def _plain(body: str) -> str:
    """Take the text out of a web page."""
    text = body.strip()
    if text.startswith("<"):
        text = html.unescape(re.sub(r"(?is)<(script|style|title)\b.*?</\1>|<[^>]*>", " ", text))
    return " ".join(text.split())


def _short(text: str) -> str:
    return text if len(text) <= 200 else f"{text[:200]}..."
