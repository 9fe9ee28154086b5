"""The list of stacks: positions by POST, answers matched on the sky, nothing asked twice, odd answers in one line."""

from dataclasses import replace
from urllib.parse import urlencode

import numpy as np
import pandas as pd
import pytest

from deepsky.archives import panstarrs
from deepsky.archives.addresses import PANSTARRS_LISTS
from deepsky.archives.http import Client, HTTPAnswer
from deepsky.archives.panstarrs import find_stacks
from deepsky.archives.params import ArchiveParams, DownloadParams
from deepsky.archives.wanted import panstarrs_files
from deepsky.errors import DataError
from tests.archive_server import ArchiveServer

LISTS = "/cgi-bin/ps1filenames.py"
HEADER = "projcell subcell ra dec filter mjd type filename shortname badflag"
PARAMS = DownloadParams(None, connections=2, requests_per_s=None, timeout_s=20, tries=2, contact=None)
ALL = tuple("grizy")


def stack_name(ra, dec, filter_, cell="1329.005"):
    """A name that tells the place it covers, to a tenth of an arcsec."""
    return f"/rings.v3.skycell/{cell.replace('.', '/')}/at_{ra:.5f}_{dec:.5f}.stk.{filter_}.unconv.fits"


def row(ra, dec, filter_, name=None, cell="1329.005", badflag=0, digits=8, kind="stack"):
    name = name or stack_name(ra, dec, filter_, cell)
    place = f"{ra:.{digits}f} {dec:.{digits}f}"
    return f"{cell.replace('.', ' ')} {place} {filter_} 0 {kind} {name} {name.split('/')[-1]} {badflag}"


class ListService:
    """Answers for every position asked that is not in a gap; ``wish`` says how."""

    def __init__(self, gap=lambda ra, dec: False, digits=8, seed=None, status=200, methods=("GET", "POST")):
        self.gap, self.digits, self.seed, self.status, self.methods = gap, digits, seed, status, methods
        self.batches = []

    def __call__(self, fields, body):
        method = "POST" if body else "GET"
        if method not in self.methods:
            return self.status, {}, b"<html><title>405 Method Not Allowed</title></html>"
        assert fields["type"] == "stack"
        if method == "POST":
            assert set(fields) == {"filters", "type", "file"}
            assert body.count(b"form-data") == 3
            places = [tuple(map(float, line.split())) for line in fields["file"].splitlines()]
        else:
            assert fields["format"] == "fits"
            places = [(float(fields["ra"]), float(fields["dec"]))]
        self.batches.append((method, places))
        rows = [
            row(ra, dec, filter_, digits=self.digits)
            for ra, dec in places
            if not self.gap(ra, dec)
            for filter_ in fields["filters"]
        ]
        if self.seed is not None:
            np.random.default_rng(self.seed).shuffle(rows)
        return 200, {"Content-Type": "text/plain"}, "\n".join([HEADER, *rows, ""]).encode()

    def asked(self):
        return [place for _, places in self.batches for place in places]


def sky(n, seed=3):
    """Objects all over the sky that the survey covers."""
    rng = np.random.default_rng(seed)
    ids = [f"{number // 7}-54922-{number:04d}" for number in range(n)]
    return pd.DataFrame({"id": ids, "ra": rng.uniform(0, 360, n), "dec": rng.uniform(-29, 89, n)})


def find(server, objects, cache, filters=ALL):
    """Stacks, and the ids outside of the footprint."""
    stacks = find_stacks(objects, filters, Client(replace(PARAMS, mirror=server.url)), cache)
    return stacks, [name for name in objects["id"] if name not in stacks]


def served(page):
    return ArchiveServer({}, {LISTS: page})


def assert_own(objects, stacks, filters=ALL):
    """Each object has the names that tell its own place."""
    assert set(stacks) <= set(objects["id"])
    for name, ra, dec in objects.set_index("id").loc[list(stacks)].itertuples():
        assert stacks[name] == {filter_: stack_name(ra, dec, filter_) for filter_ in filters}


def test_positions_go_in_batches_and_come_back_by_place(tmp_path):
    objects = sky(1203)
    in_gap = objects["ra"].between(100, 140, inclusive="neither")
    service = ListService(gap=lambda ra, dec: 100 < ra < 140, seed=5)
    with served(service) as server:
        stacks, outside = find(server, objects, tmp_path / "cache.csv")
    assert [(method, len(places)) for method, places in service.batches] == [
        (method, n)
        for start in (0, 500, 1000)
        for method, n in (("POST", len(objects[start : start + 500])), ("POST", in_gap[start : start + 500].sum()))
    ], "what seems uncovered is asked for once more"
    assert 50 < in_gap.sum() < 400
    assert outside == objects.loc[in_gap, "id"].tolist()
    assert list(stacks) == objects.loc[~in_gap, "id"].tolist()
    assert_own(objects, stacks)


def test_an_answer_that_is_cut_short_is_no_edge_of_the_footprint(tmp_path):
    objects, service = sky(300), ListService()

    def capped(fields, body):
        status, headers, answer = service(fields, body)
        return status, headers, b"".join(answer.splitlines(keepends=True)[: 1 + 5 * 70])

    with served(capped) as server:
        stacks, outside = find(server, objects, tmp_path / "cache.csv")
    assert outside == []
    assert_own(objects, stacks)
    assert len(service.batches) == 5


def test_short_digits_and_near_neighbours(tmp_path):
    """Pairs 2 arcsec apart, across ra 0 and near the pole too, answered to a third of an arcsec, in any order."""
    places = [(150.123456, 2.345678), (359.99995, -1.0), (0.00002, 40.0), (77.7, 89.95), (200.0, -29.9999)]
    pairs = [(ra, dec + step) for ra, dec in places for step in (0, 2 / 3600)]
    objects = pd.DataFrame([(f"o{n}", *place) for n, place in enumerate(pairs)], columns=["id", "ra", "dec"])
    service = ListService(seed=1)

    def rounded(fields, body):
        """Print 4 digits, but name the exact place."""
        status, headers, answer = service(fields, body)
        lines = [line.split() for line in answer.decode().splitlines()]
        for cells in lines[1:]:
            cells[2:4] = [f"{float(cell):.4f}" for cell in cells[2:4]]
        return status, headers, "\n".join(map(" ".join, lines)).encode()

    with served(rounded) as server:
        stacks, outside = find(server, objects, tmp_path / "cache.csv")
    assert outside == []
    assert_own(objects, stacks)


def test_objects_at_one_place_share_it(tmp_path):
    objects = pd.DataFrame({"id": ["a", "b"], "ra": [10.5, 10.5], "dec": [3.25, 3.25]})
    service = ListService()
    with served(service) as server:
        stacks, _ = find(server, objects, tmp_path / "cache.csv")
    assert service.asked() == [(10.5, 3.25)]
    assert stacks["a"] == stacks["b"] != {}


def test_the_south_is_outside_without_asking(tmp_path):
    objects = pd.DataFrame({"id": ["far", "limit", "in"], "ra": [10.0, 11.0, 12.0], "dec": [-60.0, -30.0, -29.9]})
    service = ListService()
    with served(service) as server:
        stacks, outside = find(server, objects, tmp_path / "cache.csv")
        assert outside == ["far", "limit"]
        assert service.asked() == [(12.0, -29.9)]
        assert list(stacks) == ["in"]
        n_asked = len(server.requests)
        assert find(server, objects[:2], tmp_path / "other.csv") == ({}, ["far", "limit"])
        assert len(server.requests) == n_asked


def test_first_good_stack_of_each_filter(tmp_path):
    rows = [
        row(20, 5, "r", "/c/late.fits", cell="1400.010"),
        row(20, 5, "r", "/c/bad.fits", cell="900.000", badflag=1),
        row(20, 5, "r", "/c/early.fits", cell="999.055"),
        row(20, 5, "i", "/c/flagged.fits", badflag=2),
        row(20, 5, "g", "/c/warp.fits", cell="900.000", kind="warp"),
        row(20, 5, "g", "/c/g.fits"),
    ]
    objects = pd.DataFrame({"id": ["a"], "ra": [20.0], "dec": [5.0]})
    for number, order in enumerate((rows, rows[::-1])):
        text = "\n".join([HEADER, *order])
        with served(lambda fields, body, text=text: (200, {}, text.encode())) as server:
            stacks, outside = find(server, objects, tmp_path / f"{number}.csv")
            assert (stacks, outside) == ({"a": {"g": "/c/g.fits", "r": "/c/early.fits"}}, [])
            assert find(server, objects, tmp_path / f"{number}.csv", ("i", "y")) == ({"a": {}}, [])


@pytest.mark.parametrize(("status", "n_objects"), [(405, 8), (501, 4)])
def test_get_where_post_is_not_allowed(tmp_path, monkeypatch, status, n_objects):
    monkeypatch.setattr(panstarrs, "BATCH_PLACES", 5)
    objects = sky(n_objects)
    service = ListService(gap=lambda ra, dec: dec < 10, status=status, methods=("GET",))
    with served(service) as server:
        stacks, outside = find(server, objects, tmp_path / "cache.csv")
    methods = [asked.method for asked in server.requests]
    n_tries = 1 if status == 405 else PARAMS.tries  # of one batch: the second is not tried by POST again
    assert methods == ["POST"] * n_tries + ["GET"] * n_objects
    assert service.asked() == list(zip(objects["ra"], objects["dec"], strict=True))
    assert outside == objects.loc[objects["dec"] < 10, "id"].tolist()
    assert_own(objects, stacks)


def test_folder_as_mirror(tmp_path):
    objects = sky(3)
    (tmp_path / "mirror/cgi-bin").mkdir(parents=True)
    for ra, dec in zip(objects["ra"].tolist(), objects["dec"].tolist(), strict=True):
        query = urlencode({"ra": ra, "dec": dec, "size": 240, "format": "fits", "filters": "grizy", "type": "stack"})
        table = "\n".join([HEADER, *(row(ra, dec, filter_) for filter_ in ALL)])
        (tmp_path / f"mirror{LISTS}?{query}").write_text(table)
    client = Client(replace(PARAMS, mirror=(tmp_path / "mirror").as_uri()))
    stacks = find_stacks(objects, ("g", "i"), client, tmp_path / "cache.csv")
    assert list(stacks) == objects["id"].tolist()
    assert_own(objects, stacks, ("g", "i"))


# ---- the cache ----


def test_nothing_is_asked_twice(tmp_path):
    objects, cache = sky(1100), tmp_path / "deep/er/cache.csv"
    whole, broken = ListService(gap=lambda ra, dec: ra < 90), iter([False] * 4 + [True])

    def page(fields, body):
        return (400, {}, b"no") if next(broken, False) else whole(fields, body)

    with served(page) as server:
        with pytest.raises(HTTPAnswer, match=f"{PANSTARRS_LISTS}: answers 400"):
            find(server, objects, cache)
        assert len(cache.read_text().splitlines()) == 1 + 1000
        stacks, outside = find(server, objects, cache)
        assert set(whole.asked()) == set(zip(objects["ra"], objects["dec"], strict=True))
        n_asked = len(server.requests)
        assert find(server, objects[::-1], cache, ("r",)) == (
            {name: {"r": stacks[name]["r"]} for name in objects["id"][::-1] if name in stacks},
            outside[::-1],
        )
        assert len(server.requests) == n_asked
    assert outside == objects.loc[objects["ra"] < 90, "id"].tolist()
    assert_own(objects, stacks)


def test_torn_last_line_is_asked_for_again(tmp_path):
    objects, cache = sky(4), tmp_path / "cache.csv"
    with served(ListService()) as server:
        expected = find(server, objects, cache)
        whole = cache.read_bytes()
        ends = [place + 1 for place, byte in enumerate(whole) if byte == ord("\n")]
        for cut in (0, 3, ends[0] - 1, ends[0], ends[0] + 5, ends[2] - 1, ends[3] - 30, len(whole) - 1):
            cache.write_bytes(whole[:cut])
            assert find(server, objects, cache) == expected
            assert cache.read_bytes() == whole


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"something else\n", "line 1 is not ra,dec,g,r,i,z,y of a place"),
        (b"ra,dec,g,r,i,z,y\n1.0,2.0,,,,,\n1.0,x,,,,,\n", "line 3 is not"),
        (b"ra,dec,g,r,i,z,y\n1.0,2.0,,,,\n", "line 2 is not"),
    ],
)
def test_broken_cache_is_refused(tmp_path, content, message):
    (tmp_path / "cache.csv").write_bytes(content)
    with served(ListService()) as server, pytest.raises(DataError, match=f"cache.csv: {message}.*; delete") as error:
        find(server, sky(2), tmp_path / "cache.csv")
    assert "\n" not in str(error.value)
    assert (tmp_path / "cache.csv").read_bytes() == content


# ---- odd answers ----

FAR = row(20 + 3 / 3600, 5, "r")


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (b"", "is no table of files but ''"),
        (b"<html><title>Down for\n maintenance</title><body>" + b"x" * 999, "is no table of files but 'Down for maint"),
        (b"Traceback: too many positions\n", "is no table of files but 'Traceback: too many positions'"),
        (f"{HEADER}\n{row(20, 5, 'r')}\n1329 5 20.0".encode(), "has 3 cells instead of 10 in row 2 of 2"),
        (f"{HEADER}\n{FAR}\n".encode(), r"has files of ra 20\.000833\d*, dec 5\.0, which was not asked for"),
        (f"{HEADER}\n{row(20, 5, 'w')}\n".encode(), "has the unknown filter 'w'"),
        (f"{HEADER}\n{row(20, 5, 'r', '/a&red=/b.fits')}\n".encode(), "has the unknown filename '/a&red=/b.fits'"),
        (f"{HEADER}\n{row(20, 5, 'r').replace('20.00000000', 'nan')}\n".encode(), "has 'nan' as ra"),
        (f"{HEADER}\n{row(20, 95, 'r')}\n".encode(), "has the declination 95"),
        (f"{HEADER.replace('badflag', 'flag')}\n{row(20, 5, 'r')}\n".encode(), "is no table of files"),
    ],
)
def test_odd_answer_is_one_line_and_teaches_nothing(tmp_path, answer, message):
    objects = pd.DataFrame({"id": ["a"], "ra": [20.0], "dec": [5.0]})
    with (
        served(lambda fields, body: (200, {"Content-Type": "text/html"}, answer)) as server,
        pytest.raises(DataError, match=f"{PANSTARRS_LISTS}: its answer {message}.*; try again later") as error,
    ):
        find(server, objects, tmp_path / "cache.csv")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "cache.csv").exists()


# ---- which files follow ----

WANTED = ArchiveParams(bands=(), sdss_jpg=False, stsci_fits=("g", "z"))


@pytest.mark.parametrize(
    ("filters", "colours"),
    [("grizy", "yig"), ("griz", "zrg"), ("gry", "yrg"), ("rizy", "yir"), ("gy", None), ("", None)],
)
def test_colour_pictures_take_first_middle_and_last(filters, colours):
    objects = pd.DataFrame({"id": ["a"], "ra": [27.952], "dec": [0.2635]})
    stacks = {"a": {filter_: f"/s/{filter_}.fits" for filter_ in filters}}
    files = {wanted.path: wanted.url for wanted in panstarrs_files(objects, stacks, WANTED)[0]}
    cutout = "https://ps1images.stsci.edu/cgi-bin/fitscut.cgi?ra=27.952&dec=0.2635&size=240&format="
    expected = {f"stsci_fits/a-{each}.fits": f"{cutout}fits&red=/s/{each}.fits" for each in "gz" if each in filters}
    if colours:
        red, green, blue = (f"/s/{each}.fits" for each in colours)
        expected["stsci_jpg/a.jpg"] = f"{cutout}jpg&red={red}&green={green}&blue={blue}"
    assert files == expected


def test_uncovered_objects_have_no_files_and_are_told():
    objects = pd.DataFrame({"id": ["a"], "ra": [27.952], "dec": [0.2635]})
    wanted, absent = panstarrs_files(objects, {}, WANTED)
    assert wanted == []
    assert [row.path for row in absent] == ["stsci_jpg/a.jpg", "stsci_fits/a-g.fits", "stsci_fits/a-z.fits"]
