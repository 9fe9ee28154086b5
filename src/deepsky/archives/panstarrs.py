"""Ask Pan-STARRS which stacks cover some places of the sky."""

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import astropy.units as u
import pandas as pd
from astropy.coordinates import SkyCoord
from rich.console import Console
from rich.progress import track

from deepsky.archives.addresses import PANSTARRS_LISTS
from deepsky.archives.http import Client, HTTPAnswer
from deepsky.archives.wanted import Stacks
from deepsky.errors import DataError

SOUTHERN_LIMIT_DEG = -30.0  # the telescope saw nothing south of it
BATCH_PLACES = 500
MATCH_ARCSEC = 1.0  # the service may print places with fewer digits than it was given
CACHE = ".panstarrs.csv"  # in the folder of raw files
_FILTERS = "grizy"  # always all of them are asked for, so that what is known of a place is complete
_COLUMNS = ("projcell", "subcell", "ra", "dec", "filter", "type", "filename", "badflag")
_CACHE_HEADER = ",".join(["ra", "dec", *_FILTERS])
_NO_POST = (405, 501)  # method not allowed, not implemented; the client answers so itself for a folder
_FILE_NAME = re.compile(r"[\w./-]+\.fits")
Place = tuple[float, float]  # ra, dec in degrees


def find_stacks(
    objects: pd.DataFrame, filters: Iterable[str], client: Client | None, cache: Path
) -> dict[str, dict[str, str]]:
    """Find the stacks that cover each object.

    Args:
        objects: id (str), ra, dec (degrees, finite); one row per object.
        filters: those wanted, of g, r, i, z, y; none: nothing is looked up.
        client: how to ask; None: nobody is asked.
        cache: CSV of what is known of each place; appended to while answers come, so that no place is asked for twice.

    Returns:
        By id, each covered object's stacks: the service's file name by filter (empty where only other filters saw the
        object). Objects outside the survey's footprint have no entry.

    Raises:
        DataError: the service does not answer, or answers no table of files, or would have to be asked but may not be;
            the cache is broken.
        OSError: the cache cannot be read or written.
    """
    wanted = tuple(filters)
    if not wanted:
        return {}
    ids = objects["id"].tolist()
    places = list(zip(objects["ra"].astype(float).tolist(), objects["dec"].astype(float).tolist(), strict=True))
    known = _read_cache(cache)
    unknown = [place for place in dict.fromkeys(places) if place[1] > SOUTHERN_LIMIT_DEG and place not in known]
    if client is not None:
        _ask_all(unknown, client, cache, known)
    elif unknown:
        problem = f"which stacks cover {len(unknown)} of {len(set(places))} places is known only there"
        raise DataError(PANSTARRS_LISTS, problem, "add --ask to ask (the answers are kept), or choose another --kind")
    covered = {name: known[place] for name, place in zip(ids, places, strict=True) if known.get(place)}
    return {name: {key: own[key] for key in wanted if key in own} for name, own in covered.items()}


def _ask_all(places: Sequence[Place], client: Client, cache: Path, known: dict[Place, Stacks]) -> None:
    """Ask for all places in batches, and put each answer into the cache and into ``known``."""
    can_post = True
    starts = range(0, len(places), BATCH_PLACES)
    shown = track(starts, "asking for stacks", console=Console(stderr=True), disable=len(starts) < 2)
    for start in shown:
        batch = places[start : start + BATCH_PLACES]
        if can_post:
            try:
                _remember(_by_post(batch, client), cache, known)
                continue
            except HTTPAnswer as answer:
                if answer.status not in _NO_POST:
                    raise
                can_post = False
        for place in batch:
            _remember(_by_get(place, client), cache, known)


def _by_post(places: Sequence[Place], client: Client) -> dict[Place, Stacks]:
    """Ask until an answer brings nothing new: a list that was cut short must not pass for the footprint's edge."""
    found: dict[Place, Stacks] = {place: {} for place in places}
    waiting, before = list(places), len(places) + 1
    while 0 < len(waiting) < before:
        lines = "".join(f"{ra_deg!r} {dec_deg!r}\n" for ra_deg, dec_deg in waiting)
        text = client.ask(PANSTARRS_LISTS, form={"filters": _FILTERS, "type": "stack"}, file=lines)
        found |= _read_answer(text, waiting)
        before, waiting = len(waiting), [place for place in waiting if not found[place]]
    return found


def _by_get(place: Place, client: Client) -> dict[Place, Stacks]:
    ra_deg, dec_deg = place
    query = {
        "ra": repr(ra_deg),
        "dec": repr(dec_deg),
        "size": "240",  # asked for by the service, whatever the cutout's size will be
        "format": "fits",
        "filters": _FILTERS,
        "type": "stack",
    }
    return _read_answer(client.ask(PANSTARRS_LISTS, query=query), [place])


def _read_answer(text: str, places: Sequence[Place]) -> dict[Place, Stacks]:
    """Give each asked place the stacks of the answered place nearest to it; none where no row is near.

    Raises:
        DataError: no table, a broken row, or a row of a place that was not asked for.
    """
    table = _table(text)
    answered = table[["ra", "dec"]].drop_duplicates()
    if answered.empty:
        return {place: {} for place in places}
    asked = SkyCoord([ra for ra, _ in places], [dec for _, dec in places], unit="deg")
    told = SkyCoord(answered["ra"].to_numpy(), answered["dec"].to_numpy(), unit="deg")
    far = told.match_to_catalog_sky(asked)[1] > MATCH_ARCSEC * u.arcsec
    if far.any():
        row = answered[far].iloc[0]
        raise _odd(f"has files of ra {row['ra']}, dec {row['dec']}, which was not asked for")
    groups = {place: _best_stacks(rows) for place, rows in table.groupby(["ra", "dec"], sort=False)}
    stacks = [groups[place] for place in answered.itertuples(index=False, name=None)]
    nearest, distance, _ = asked.match_to_catalog_sky(told)
    near = (distance <= MATCH_ARCSEC * u.arcsec).tolist()
    return {
        place: stacks[number] if held else {}
        for place, number, held in zip(places, nearest.tolist(), near, strict=True)
    }


def _best_stacks(rows: pd.DataFrame) -> Stacks:
    """Take of each filter the first stack without a flag; the sky cells' numbers, not the answer's order, say first."""
    good = rows[rows["badflag"] == 0].sort_values(["projcell", "subcell", "filename"])
    first = good.drop_duplicates("filter")
    return dict(zip(first["filter"], first["filename"], strict=True))


def _table(text: str) -> pd.DataFrame:
    """Read the service's space-separated table of stacks."""
    header, *lines = [line.split() for line in text.splitlines() if line.strip()] or [[]]
    if not set(_COLUMNS) <= set(header):
        raise _odd(f"is no table of files but {_beginning(text)!r}")
    for number, cells in enumerate(lines, start=1):
        if len(cells) != len(header):
            raise _odd(f"has {len(cells)} cells instead of {len(header)} in row {number} of {len(lines)}")
    table = pd.DataFrame(lines, columns=header, dtype=str)
    table = table.loc[table["type"] == "stack", list(_COLUMNS)]
    for column in ("projcell", "subcell", "ra", "dec", "badflag"):
        numbers = pd.to_numeric(table[column], errors="coerce")
        if numbers.isna().any():
            raise _odd(f"has {table.loc[numbers.isna(), column].iloc[0]!r} as {column}, which is no number")
        table[column] = numbers.astype(float)
    if (table["dec"].abs() > 90).any():
        raise _odd(f"has the declination {table['dec'][table['dec'].abs() > 90].iloc[0]}")
    for column, good in (
        ("filter", table["filter"].isin(list(_FILTERS))),
        ("filename", table["filename"].map(lambda name: _FILE_NAME.fullmatch(name) is not None).astype(bool)),
    ):
        if not good.all():
            raise _odd(f"has the unknown {column} {table.loc[~good, column].iloc[0]!r}")
    return table


def _odd(what: str) -> DataError:
    return DataError(PANSTARRS_LISTS, f"its answer {what}", "try again later: what is known so far is kept")


def _beginning(text: str) -> str:
    """Return a page's title, or the first words of any other text."""
    title = re.search(r"<title[^>]*>(.*?)</title>", text, re.IGNORECASE | re.DOTALL)
    words = " ".join((title[1] if title else text).split())
    return words if len(words) <= 100 else f"{words[:100]}..."


def _read_cache(path: Path) -> dict[Place, Stacks]:
    """Read what is known; cut off a last line that a killed process left unfinished."""
    if not path.exists():
        return {}
    content = path.read_bytes()
    end = content.rfind(b"\n") + 1
    if end < len(content):
        os.truncate(path, end)
    known: dict[Place, Stacks] = {}
    for number, line in enumerate(content[:end].decode(errors="replace").splitlines(), start=1):
        cells = line.split(",")
        try:
            if number == 1 and line != _CACHE_HEADER:
                raise ValueError
            if number > 1:
                ra, dec, *names = cells
                own = zip(_FILTERS, names, strict=True)
                known[float(ra), float(dec)] = {filter_: name for filter_, name in own if name}
        except ValueError as error:
            problem = f"line {number} is not {_CACHE_HEADER} of a place"
            raise DataError(path, problem, "delete the file: the next fetch asks again") from error
    return known


def _remember(found: Mapping[Place, Stacks], path: Path, known: dict[Place, Stacks]) -> None:
    known.update(found)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        if file.tell() == 0:
            file.write(f"{_CACHE_HEADER}\n")
        for (ra_deg, dec_deg), own in found.items():
            file.write(",".join([repr(ra_deg), repr(dec_deg), *(own.get(name, "") for name in _FILTERS)]) + "\n")
