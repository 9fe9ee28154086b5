"""What may get its name: real survey files pass, and no truncated, foreign or blank one does."""

import bz2
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from deepsky.archives.answers import Failed
from deepsky.archives.checks import check_content
from deepsky.archives.wanted import Kind, Wanted
from tests.archive_server import frame_content, jpeg_content

PLACE = (752, 1, 10, "g")
FRAME = frame_content(*PLACE)


def check(content: bytes, kind: Kind, path: Path, *, whole: bool = False) -> None:
    place = {"frame": PLACE, "psfield": (752, 1, 10, "")}.get(kind, (1.0, 2.0))
    path.write_bytes(content)
    check_content(path, Wanted("frames/x", "http://x", kind, place), whole=whole)  # type: ignore[arg-type]


def fits_content(folder: Path, pixels: np.ndarray, n_images: int = 1, **named: object) -> bytes:
    image = fits.PrimaryHDU()
    image.header.update(named)
    fits.HDUList([image, *(fits.ImageHDU(pixels) for _ in range(n_images))]).writeto(folder / "x.fits")
    return (folder / "x.fits").read_bytes()


@pytest.mark.real
@pytest.mark.parametrize("field", ["003918-3-0213", "008162-6-0080", "001992-1-0087"])
def test_real_frames_pass_and_only_as_themselves(field: str, real_data: Callable[[str], Path]) -> None:
    run, camcol, number = map(int, field.split("-"))
    for path in sorted(real_data(f"sdss_frames/{field}").glob("frame-?-*.fits.bz2")):
        band = path.name.split("-")[1]
        for whole in (False, True):
            check_content(path, Wanted("frames/x", "", "frame", (run, camcol, number, band)), whole=whole)
        for other in ((run + 1, camcol, number, band), (run, camcol, number + 1, band), (run, camcol, number, "x")):
            with pytest.raises((Failed, KeyError)):
                check_content(path, Wanted("frames/x", "", "frame", other), whole=False)


@pytest.mark.real
def test_real_cutouts_pass(real_data: Callable[[str], Path]) -> None:
    for path in real_data("multisurvey_cutouts_ra27.95_dec0.26").glob("*.fits"):
        check_content(path, Wanted("stsci_fits/x", "", "fits_cutout", (27.95, 0.26)), whole=False)
    for path in sorted((real_data("galaxy_zoo1") / "images").iterdir())[:100]:
        check_content(path, Wanted("sdss_jpg/x", "", "jpeg", (1.0, 2.0)), whole=False)


@pytest.mark.parametrize("kind", ["frame", "jpeg", "fits_cutout", "psfield"])
def test_a_file_cut_anywhere_never_passes(kind: Kind, tmp_path: Path) -> None:
    content = {"frame": FRAME, "jpeg": jpeg_content(1)}.get(kind)
    content = content or fits_content(
        tmp_path, np.random.default_rng(1).normal(size=(60, 60)), 6 if kind == "psfield" else 1
    )
    check(content, kind, tmp_path / "file")
    cuts = [0, 1, 4, 80, 2880, len(content) - 2880, *range(len(content) - 12, len(content))]
    cuts += np.random.default_rng(2).integers(0, len(content), 60).tolist()
    for n_bytes in cuts:
        with pytest.raises(Failed) as caught:
            check(content[:n_bytes], kind, tmp_path / "file")
        assert caught.value.sort == "retry"


def test_a_frame_of_many_streams_cut_between_two_is_refused(tmp_path: Path) -> None:
    raw = bz2.decompress(FRAME)
    streams = [bz2.compress(raw[start : start + 900_000]) for start in range(0, len(raw), 900_000)]
    check(b"".join(streams), "frame", tmp_path / "file")
    for n_streams in (1, 2, len(streams) - 1):
        with pytest.raises(Failed, match="holds less than its FITS header says"):
            check(b"".join(streams[:n_streams]), "frame", tmp_path / "file")


def test_a_frame_of_two_halves_is_refused_when_looked_at_whole(tmp_path: Path) -> None:
    other = frame_content(*PLACE, noisy_rows=101)
    spliced = FRAME[: len(FRAME) // 2] + other[len(FRAME) // 2 :]
    with pytest.raises(Failed, match="cannot be decompressed"):
        check(spliced, "frame", tmp_path / "file", whole=True)


@pytest.mark.parametrize("value", [0.0, 7.0, np.nan])
def test_a_blank_cutout_lies_outside_the_footprint(value: float, tmp_path: Path) -> None:
    with pytest.raises(Failed, match="blank: outside the survey's footprint") as caught:
        check(fits_content(tmp_path, np.full((50, 50), value)), "fits_cutout", tmp_path / "file")
    assert caught.value.sort == "missing"


@pytest.mark.parametrize(
    ("card", "spoilt"),
    [
        (b"NAXIS1  =                   50", b"NAXIS1  =                -2880"),
        (b"BITPIX  =                  -64", b"BITPIX  =                   77"),
        (b"NAXIS   =                    2", b"NAXIS   =                  'a'"),
    ],
)
def test_an_odd_header_is_refused_like_any_bad_file(card: bytes, spoilt: bytes, tmp_path: Path) -> None:
    content = fits_content(tmp_path, np.arange(2500.0).reshape(50, 50))
    assert content.count(card) == 1
    with pytest.raises(Failed) as caught:
        check(content.replace(card, spoilt), "fits_cutout", tmp_path / "file")
    assert caught.value.sort == "retry"


def test_a_psfield_of_another_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Failed, match="another file: RUN 94, not 752"):
        check(fits_content(tmp_path, np.ones((5, 5)), 6, RUN=94, CAMCOL=1), "psfield", tmp_path / "file")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"<!DOCTYPE html>\n<html><head><title>\n 503 Busy\n</title>", "is a web page (503 Busy), not the file"),
        (b"  <html>", "is a web page (without a title), not the file"),
        (b"", "is no "),
        (b"BZh9" + bytes(100), "bzip2's end mark"),
        (bz2.compress(b"no FITS"), "holds no FITS image"),
    ],
)
@pytest.mark.parametrize("kind", ["frame", "jpeg", "fits_cutout"])
def test_other_content_is_named(kind: Kind, content: bytes, said: str, tmp_path: Path) -> None:
    said = said if kind == "frame" or "web" in said else "is no "
    with pytest.raises(Failed, match=re.escape(said)):
        check(content, kind, tmp_path / "file")
