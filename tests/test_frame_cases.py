"""Frames and catalogues that people really have, each under its name; positions within 0.1 px of where the light is."""

import numpy as np
import pandas as pd
import pytest

from deepsky.errors import DataError
from deepsky.formats.params import FramesParams
from deepsky.imaging.badfiles import BadFiles
from deepsky.imaging.cutouts import cut_objects, sky_positions
from deepsky.imaging.fields import read_field
from deepsky.stages.render import placed_objects
from tests.conftest import REAL_DATA

CASES = REAL_DATA.parent / "cases"
pytestmark = pytest.mark.real


def params_of(case, **changes):
    folder = CASES / case
    if not folder.exists():
        pytest.skip(f"needs the real case {folder}")
    (catalogue,) = folder.glob("catalogue.*")
    own = {
        "folder": str(folder / "frames"),
        "catalogue": str(catalogue),
        "id_column": "id",
        "label_column": "class",
        "classes": ("GALAXY", "STAR"),
        "position": "radec",
        "position_band": "r",
        "bands": ("g", "r", "i"),
        "frame_bands": ("r",),
        "rgb_bands": ("i", "r", "g"),
        "colour_bands": ("i", "r", "g"),
        "cutout_size_px": 16,
    }
    return FramesParams(**own | changes)


def check_places(params, policy="stop"):
    """Place every object and compare with the pixels that the catalogue names; return them all."""
    bad, placed, seen = BadFiles(policy), None, []
    placed = placed_objects(params, bad, "case")
    for number, objects in placed.objects.groupby("image"):
        frames = read_field(placed.fields[number], params.reading)
        ra_deg, dec_deg = sky_positions(objects, frames["r"].astrometry, params.position)
        for frame in frames.values():
            x_px, y_px = frame.astrometry.to_pixels(ra_deg, dec_deg)
            x, y = (objects[name if name in objects else name.upper()] for name in "xy")
            assert np.hypot(x_px - x, y_px - y).max() < 0.1, frame.path
        cutouts = cut_objects([frames["r"]], ra_deg, dec_deg, 9).flux_nmgy[..., 0]
        assert (cutouts[:, 3:6, 3:6].mean(axis=(1, 2)) > cutouts[:, 0].mean(axis=1)).mean() > 0.9  # light is there
        seen.append(objects.assign(ra_deg=ra_deg, dec_deg=dec_deg))
    return pd.concat(seen), placed, bad


@pytest.mark.parametrize("position", ["radec", "xy"])
@pytest.mark.parametrize(
    "case",
    [
        "01-appledouble-frames", "02-dec-first", "04-filter-decam", "04b-filter-hsc", "04c-filter-upper", "05-fz",
        "06b-sip-strong", "07-cunit-degree", "07b-cunit-DEG", "07c-cunit-degrees", "12-bunit-nmgy", "12-bunit-upper",
        "14-hms", "14b-upper-columns", "14d-semicolon", "14e-tab", "14g-space-after-comma", "14h-fits-table",
        "14i-votable", "14j-ecsv", "16-b1950", "16b-b1950-wide",
    ],
)  # fmt: skip
def test_one_field(case, position):
    found, placed, _ = check_places(params_of(case, position=position))
    assert len(found) == (22 if case == "16b-b1950-wide" else 40)
    assert len(placed.fields) == 1
    if case == "02-dec-first":
        assert found["ra_deg"].between(149.98, 150.02).all()
        assert found["dec_deg"].between(2.18, 2.22).all()


@pytest.mark.parametrize("case", ["18-wide-sip-two-fields", "18b-wide-two-fields-plain"])
def test_wide_fields(case):
    found, placed, _ = check_places(params_of(case))
    assert found["image"].value_counts().to_dict() == {0: 12, 1: 12}
    assert [field.name for field in placed.fields] == ["sky0", "sky1"]


def test_one_broken_of_many():
    params = params_of("17-one-broken-of-many")
    broken = next(
        path for path in sorted((CASES / "17-one-broken-of-many/frames").iterdir()) if b"<" in path.read_bytes()[:9]
    )
    with pytest.raises(DataError, match=broken.name):
        check_places(params)
    found, _, bad = check_places(params, "skip")
    assert len(found) == 36
    assert [where for where, _ in bad.skipped].count(str(broken)) == 1
    assert len(bad.skipped) == 13
