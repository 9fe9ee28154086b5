"""SQL for SDSS' SkyServer: the reference query, a balanced sample, a user's SELECT; and each of them in pages.

The service cuts an answer at its row limit and says nothing, so whatever may be long is asked for in pages, each
beginning after the last row of the one before.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

from deepsky.catalogue.tables import REFERENCE_COLUMNS
from deepsky.errors import ConfigError

ROW_LIMIT = 500_000  # of one answer
REFERENCE_ROWS = 100_000
CLASSES = ("GALAXY", "QSO", "STAR")
FIELD_ORDER = "field_order"
_COLUMNS = (
    "p.objid, p.ra, p.dec, p.u, p.g, p.r, p.i, p.z, p.run, p.rerun, p.camcol, p.field, "
    "s.specobjid, s.class, s.z AS redshift, s.plate, s.mjd, s.fiberid"
)
_SOURCE = (
    "FROM PhotoObj AS p JOIN SpecObj AS s ON s.bestobjid = p.objid "
    "WHERE p.u BETWEEN 0 AND 19.6 AND p.g BETWEEN 0 AND 20"
)
# Every field gets a place in an order that jumps about the sky: the objid without its last 16 bits names the field,
# and a multiplication modulo a prime scatters neighbours. It is the same for all classes, so they share fields.
_FIELD_ORDER_SQL = "((s.bestobjid / 65536) % 65521) * 48271 % 65521"
_KEYS = ("objid", "specobjid")  # two spectra may have one objid
_REMEDY = "give one SELECT with the columns of the reference query (docs/archives.md)"
_TOKEN = re.compile(
    r"(?P<space>(?:\s|--[^\n]*|/\*.*?\*/)+)|(?P<quoted>'(?:[^']|'')*'|\[[^\]]*\]|\"[^\"]*\")"
    r"|(?P<word>[A-Za-z_@#][\w@#$]*)|(?P<number>\d+(?:\.\d*)?(?:[eE][+-]?\d+)?)|(?P<other>.)",
    re.DOTALL,
)
_OTHER_STATEMENTS = {
    "SELECT", "INTO", "UNION", "EXCEPT", "INTERSECT", "INSERT", "UPDATE", "DELETE", "DROP", "CREATE", "ALTER",
    "EXEC", "EXECUTE", "DECLARE", "TRUNCATE",
}  # fmt: skip


@dataclass(frozen=True)
class Query:
    """One selection of objects.

    Attributes:
        label: names it in messages and file names.
        sql: one SELECT, without TOP and ORDER BY where it is asked for in pages.
        keys: columns that order the pages, integers; none: it is asked for at once.
        limit: how many rows, the first ones by ``keys``; None for all.
        distinct: whether an object counts once, however many rows it has.
    """

    label: str
    sql: str
    keys: tuple[str, ...] = _KEYS
    limit: int | None = None
    distinct: bool = False


@dataclass(frozen=True)
class _Token:
    kind: str
    text: str
    depth: int  # of parentheses

    @property
    def top_word(self) -> str:
        """Keyword of the statement itself, upper case; empty for anything else."""
        return self.text.upper() if self.kind == "word" and self.depth == 0 else ""


def reference_query() -> Query:
    """Give the reference query: the first REFERENCE_ROWS objects by objid, whatever their classes."""
    return Query("objects", f"SELECT {_COLUMNS} {_SOURCE}", _KEYS, REFERENCE_ROWS, distinct=True)


def class_queries(n_per_class: int) -> list[Query]:
    """Give a balanced sample: of each class the objects in the first fields of one pseudo-random order.

    Args:
        n_per_class: objects of each class, 1..ROW_LIMIT.

    Raises:
        ConfigError: the number is out of range.
    """
    if not 1 <= n_per_class <= ROW_LIMIT:
        raise ConfigError("--objects-per-class", f"{n_per_class} is out of range", f"give 1 to {ROW_LIMIT}")
    return [
        Query(
            label,
            f"SELECT {_COLUMNS}, {_FIELD_ORDER_SQL} AS {FIELD_ORDER} {_SOURCE} AND s.class = '{label}'",
            (FIELD_ORDER, *_KEYS),
            n_per_class,
            distinct=True,
        )
        for label in CLASSES
    ]


def user_query(text: str, where: object) -> Query:
    """Make a user's SELECT fit for pages.

    Its TOP n becomes the number of rows: without ORDER BY any n rows will do, and the first by objid can be had
    again. With ORDER BY it is asked for as it is. ORDER BY alone says nothing about which rows, and is left out.

    Args:
        text: SQL, comments and semicolons at the end included.
        where: names the SQL in errors.

    Raises:
        ConfigError: not one SELECT, columns of the reference query missing, or a TOP that cannot be had in pages.
    """
    tokens = _tokens(text, where)
    _check_one_select(tokens, where)
    top_at, top_end, limit = _find_top(tokens, where)
    _check_columns(tokens[top_end:], where)
    words = [token.top_word for token in tokens]
    order_at = next((at for at, word in enumerate(words) if word == "ORDER"), len(tokens))
    if "OFFSET" in words[order_at:]:
        raise ConfigError(where, "pages by itself with OFFSET", "leave OFFSET out: long answers are asked for in pages")
    if limit is None or order_at == len(tokens):
        return Query("objects", _text([*tokens[:top_at], *tokens[top_end:order_at]]), _KEYS, limit)
    if limit > ROW_LIMIT:
        raise ConfigError(
            where,
            f"asks for TOP {limit} with ORDER BY, but one answer holds {ROW_LIMIT} rows",
            f"leave ORDER BY out, or ask for at most {ROW_LIMIT}",
        )
    return Query("objects", _text(tokens), (), limit)


def page_sql(query: Query, after: Mapping[str, str] | None, n_rows: int) -> str:
    """Give the SQL of one page.

    Args:
        query: has keys.
        after: the row that the page follows; None for the first page.
        n_rows: of the page.
    """
    # A key that is no number (specobjid of an object without spectrum) does not part rows: there is one such row.
    keys = [key for key in query.keys if after is not None and after[key].isdecimal()]
    where = f" WHERE {_follows(keys, after)}" if after is not None else ""
    order = ", ".join(f"q.{key}" for key in query.keys)
    return f"SELECT TOP {n_rows} * FROM ({query.sql}) AS q{where} ORDER BY {order}"


def _follows(keys: list[str], after: Mapping[str, str]) -> str:
    """Say `row > after` in an order by several keys, in a form that an index on the first one serves."""
    key, *minor = keys
    if not minor:
        return f"q.{key} > {after[key]}"
    return f"q.{key} >= {after[key]} AND (q.{key} > {after[key]} OR ({_follows(minor, after)}))"


def _tokens(text: str, where: object) -> list[_Token]:
    """Split SQL, without comments, spaces and semicolons at either end."""
    tokens, depth = [], 0
    for match in _TOKEN.finditer(text):
        kind = str(match.lastgroup)
        found = " " if kind == "space" else match[0]
        depth -= found == ")"
        tokens.append(_Token(kind, found, depth))
        depth += found == "("
        if kind == "other" and found in "'[\"":
            raise ConfigError(where, f"has a {found} that is never closed", "close it")
        if depth < 0:
            break
    if depth:
        raise ConfigError(where, "has parentheses that do not match", "mend them")
    while tokens and tokens[-1].text in " ;":
        tokens.pop()
    while tokens and tokens[0].kind == "space":
        tokens.pop(0)
    return tokens


def _check_one_select(tokens: list[_Token], where: object) -> None:
    if not tokens:
        raise ConfigError(where, "holds no SQL", _REMEDY)
    if tokens[0].top_word != "SELECT":
        raise ConfigError(where, f"begins with {tokens[0].text!r}, not with SELECT", _REMEDY)
    if any(token.text == ";" for token in tokens):
        raise ConfigError(where, "holds several statements", _REMEDY)
    for before, token in pairwise(tokens):
        if token.top_word in _OTHER_STATEMENTS and before.text != ".":
            raise ConfigError(where, f"is not one SELECT: it has {token.text!r} in it", _REMEDY)


def _find_top(tokens: list[_Token], where: object) -> tuple[int, int, int | None]:
    """Find TOP n: where it begins and ends among the tokens, and n."""
    solid = [at for at, token in enumerate(tokens) if token.kind != "space"]
    first = 2 if len(solid) > 1 and tokens[solid[1]].top_word in ("DISTINCT", "ALL") else 1
    if len(solid) <= first or tokens[solid[first]].top_word != "TOP":
        begin = solid[first - 1] + 1
        return begin, begin, None
    after_top = solid[first + 1 :]
    if after_top and tokens[after_top[0]].text == "(":
        number, after_number = after_top[1:2], after_top[3:]
    else:
        number, after_number = after_top[:1], after_top[1:]
    text = tokens[number[0]].text if number else ""
    if not text.isdecimal() or int(text) == 0 or not after_number:
        raise ConfigError(where, f"has TOP {text}, which is no number of rows", "write TOP and a number")
    following = tokens[after_number[0]].top_word
    if following in ("PERCENT", "WITH"):
        raise ConfigError(where, f"has TOP {text} {following}, which cannot be had in pages", "write TOP and a number")
    return solid[first], after_number[0], int(text)


def _check_columns(tokens: list[_Token], where: object) -> None:
    """Refuse a list of columns that lacks one of the reference query, before it costs a query."""
    words = [token.top_word for token in tokens]
    selected = tokens[: words.index("FROM")] if "FROM" in words else tokens
    if any(token.text == "*" and token.depth == 0 for token in selected):
        return
    names = {token.text.strip('[]"').lower() for token in selected if token.kind in ("word", "quoted")}
    missing = [column for column in REFERENCE_COLUMNS if column not in names]
    if missing:
        raise ConfigError(where, f"does not select {', '.join(missing)}", _REMEDY)


def _text(tokens: list[_Token]) -> str:
    """Write tokens as SQL again."""
    return "".join(token.text for token in tokens).strip()
