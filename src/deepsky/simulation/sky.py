"""The simulated survey's truth: which sources are on the sky, and the catalogue that the survey publishes of them."""

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.special import ndtr, ndtri

from deepsky.catalogue.objid import pack_objid
from deepsky.catalogue.survey import BANDS, FRAME_SHAPE, UNIQUE_ROWS
from deepsky.catalogue.tables import REFERENCE_COLUMNS, RERUN
from deepsky.simulation.fields import Field, frame_wcs, plan_fields
from deepsky.simulation.params import CatalogueParams

Array = npt.NDArray[np.float64]

CLASSES = ("GALAXY", "QSO", "STAR")
# 16th percentile, median and 84th percentile of u-g, g-r, r-i and i-z, measured on 10,000 objects of SDSS DR14.
COLOUR_LOCI = {
    "STAR": ((0.93, 1.18, 1.53), (0.23, 0.42, 0.60), (0.07, 0.16, 0.24), (0.00, 0.06, 0.12)),
    "GALAXY": ((1.11, 1.41, 1.89), (0.47, 0.72, 0.93), (0.30, 0.40, 0.45), (0.16, 0.28, 0.35)),
    "QSO": ((0.07, 0.21, 0.41), (0.01, 0.15, 0.34), (-0.02, 0.13, 0.28), (-0.05, 0.06, 0.23)),
}
# Rank correlations of those colours in the same catalogue, upper triangle by rows.
_COLOUR_CORRELATIONS = {
    "STAR": (0.81, 0.72, 0.66, 0.89, 0.85, 0.85),
    "GALAXY": (0.89, 0.68, 0.82, 0.83, 0.90, 0.78),
    "QSO": (0.19, 0.12, 0.31, 0.15, 0.15, 0.15),
}
# Mean and standard deviation of r: alike on purpose, so that brightness does not tell the classes apart. (In the
# real reference query it does: its cut in u and g keeps faint quasars and bright galaxies.)
_R_MAG = {"STAR": (17.9, 1.1), "GALAXY": (17.7, 1.0), "QSO": (18.3, 1.0)}
R_MAG_RANGE = (16.0, 20.5)
DEPTH_MAG = {"u": 22.2, "g": 23.2, "r": 22.9, "i": 22.4, "z": 20.7}  # five sigma, point source
_ASINH_SOFTENING = {"u": 1.4e-10, "g": 0.9e-10, "r": 1.2e-10, "i": 1.8e-10, "z": 7.4e-10}
_BACKGROUND_PER_FRAME = {"STAR": 200, "GALAXY": 400}
# How alike fields are in their mix of classes: the sum of a Dirichlet distribution's parameters, fitted to the mixes of
# those fields of SDSS DR14 that hold five or more of 10,000 objects (619 fields: 3.6), or ten or more (39: 5.0).
_MIX_CONCENTRATION = 4.0
# Most faint stars are red dwarfs, which no spectroscopic survey of blue objects picks.
_RED_DWARFS = ((2.2, 2.6, 3.0), (1.25, 1.40, 1.50), (0.60, 1.00, 1.50), (0.30, 0.52, 0.80))
_RED_DWARF_SHARE = 0.6
_BACKGROUND_MARGIN_PX = 150.0  # sources just outside still shed light into the frame and fill edge cutouts
_CLEAR_PX = 40.0  # between catalogued objects
_EDGE_SHARE = 0.04


def draw_sky(params: CatalogueParams) -> pd.DataFrame:
    """Draw every source of the simulated sky.

    Returns:
        One row per source: ra, dec (degrees, ICRS); class; u, g, r, i, z (true AB magnitudes); redshift; size_arcsec
        and bulge_size_arcsec (half-light radii of an exponential disc and a de Vaucouleurs bulge along the major
        axis, 0 for point sources); axis_ratio; pa_deg (east of north); bulge_fraction (of the r light); catalogued;
        run, camcol, field (where it is catalogued; of others the group's first); number (within the field, from 1; 0
        when not catalogued); group (of overlapping fields).
    """
    fields = plan_fields(params.n_fields, params.seed)
    numbered = list(enumerate(fields))
    groups = [[(n, field) for n, field in numbered if field.group == group] for group in range(fields[-1].group + 1)]
    return pd.concat([_draw_group(members, params) for members in groups], ignore_index=True)


def reference_catalogue(sky: pd.DataFrame, seed: int) -> pd.DataFrame:
    """Give the catalogue as the survey's database would.

    Args:
        sky: truth, from `draw_sky`.
        seed: of the photometric noise.

    Returns:
        One row per catalogued source with REFERENCE_COLUMNS, ordered by objid; magnitudes are observed ones.
    """
    table = sky[sky["catalogued"]].copy()
    rng = np.random.default_rng([seed, 3])
    for band in BANDS:
        table[band] = _observed_mag(table[band].to_numpy(np.float64), band, rng).round(5)
    table["rerun"] = RERUN
    table["objid"] = pack_objid(rerun=RERUN, **{name: table[name] for name in ("run", "camcol", "field", "number")})
    position = table.groupby("group").cumcount().to_numpy()
    plate, fiberid = 266 + 3 * table["group"].to_numpy() + position // 640, position % 640 + 1
    mjd = 51600 + (plate * 7) % 3000
    specobjid = (plate << 50) | (fiberid << 38) | ((mjd - 50000) << 24) | (26 << 10)
    table = table.assign(plate=plate, fiberid=fiberid, mjd=mjd, specobjid=specobjid)
    table[["ra", "dec", "redshift"]] = table[["ra", "dec", "redshift"]].round(8)
    return table.sort_values("objid")[list(REFERENCE_COLUMNS)].reset_index(drop=True)


def _draw_group(members: list[tuple[int, Field]], params: CatalogueParams) -> pd.DataFrame:
    """Draw the sources of one group, given its fields with their numbers in the survey."""
    group = members[0][1].group
    rng = np.random.default_rng([params.seed, 2, group])
    placed = np.empty((0, 2))
    tables = []
    for step, (number, field) in enumerate(members):
        labels = _draw_labels(len(CLASSES) * params.n_per_class_per_field, _mix(params.seed, number), rng)
        positions_px = _place(len(labels), step, len(members), placed, rng)
        placed = np.concatenate([placed, positions_px + np.array([0.0, step * UNIQUE_ROWS])])
        table = _sources(labels, _catalogued_r_mag(labels, rng), rng)
        table["number"] = np.arange(1, len(labels) + 1)
        tables.append(_on_sky(table, field, positions_px))
    tables.append(_draw_background([field for _, field in members], placed, rng))
    table = pd.concat(tables, ignore_index=True)
    table["catalogued"], table["group"] = table["number"] > 0, group
    return table


def _draw_labels(n: int, mix: Array, rng: np.random.Generator) -> npt.NDArray[np.str_]:
    """Draw the classes of a field's objects: one of each, so that small skies can be split, the others by the mix."""
    return rng.permutation(np.concatenate([CLASSES, rng.choice(CLASSES, n - len(CLASSES), p=mix)]))


def _mix(seed: int, number: int) -> Array:
    """Return the shares of CLASSES in a field: drawn once for three fields, in which the classes change places.

    So each field has a mix of its own, and all together hold about as many of each.
    """
    rng = np.random.default_rng([seed, 4, number // len(CLASSES)])
    shares: Array = rng.dirichlet(np.full(len(CLASSES), _MIX_CONCENTRATION / len(CLASSES)))
    return np.roll(shares, number % len(CLASSES))


def _draw_background(members: list[Field], placed_px: Array, rng: np.random.Generator) -> pd.DataFrame:
    """Draw sources that nobody took a spectrum of, down to the noise; bright ones keep off catalogued objects."""
    rows_px = FRAME_SHAPE[0] + UNIQUE_ROWS * (len(members) - 1) + 2 * _BACKGROUND_MARGIN_PX
    columns_px = FRAME_SHAPE[1] + 2 * _BACKGROUND_MARGIN_PX
    frames = rows_px * columns_px / (FRAME_SHAPE[0] * FRAME_SHAPE[1])
    labels = np.repeat(list(_BACKGROUND_PER_FRAME), [int(n * frames) for n in _BACKGROUND_PER_FRAME.values()])
    slope = np.where(labels == "STAR", 0.16, 0.42)  # of log10 counts per magnitude
    bright, faint = np.where(labels == "STAR", 14.0, 16.5), 23.2
    share = rng.uniform(size=len(labels))
    r_mag = faint + np.log10(share + (1 - share) * 10 ** (slope * (bright - faint))) / slope
    positions_px = rng.uniform(size=(len(labels), 2)) * [columns_px, rows_px] - _BACKGROUND_MARGIN_PX
    distance_px = np.hypot(*(positions_px[:, None] - placed_px[None]).transpose(2, 0, 1)).min(axis=1)
    keep = distance_px > np.interp(r_mag, [14.0, 18.0, 20.5, 22.0], [90.0, 50.0, 25.0, 8.0])
    table = _sources(labels[keep], r_mag[keep], rng, red_dwarf_share=_RED_DWARF_SHARE)
    table["number"] = 0
    return _on_sky(table, members[0], positions_px[keep])


def _place(n: int, step: int, n_steps: int, taken_px: Array, rng: np.random.Generator) -> Array:
    """Scatter n objects over a field, (n, 2) column and row of its r frame, clear of each other.

    Neighbours share rows: the lower field catalogues those below the middle of the overlap, the upper those above.
    Every object lies wholly in all five frames, whose reference pixels differ by up to 14 px; a small share lies so
    near an edge that a 64 px cutout crosses it.
    """
    half_overlap = (FRAME_SHAPE[0] - UNIQUE_ROWS) / 2
    low = np.array([0.0, half_overlap if step else 0.0])
    high = np.array([FRAME_SHAPE[1] - 1.0, FRAME_SHAPE[0] - 1.0 - (half_overlap if step < n_steps - 1 else 0.0)])
    chosen: list[Array] = []
    others = taken_px - np.array([0.0, step * UNIQUE_ROWS])
    while len(chosen) < n:
        margin_px = 47.0
        candidate = rng.uniform(low + margin_px, high - margin_px)
        if rng.uniform() < _EDGE_SHARE:  # 24 px leaves a point source whole in the band that is shifted most
            candidate[0] = rng.choice([24.0, FRAME_SHAPE[1] - 25.0])
        everyone = np.concatenate([others, np.reshape(chosen, (-1, 2))])
        if len(everyone) == 0 or np.hypot(*(everyone - candidate).T).min() > _CLEAR_PX:
            chosen.append(candidate)
    return np.array(chosen)


def _on_sky(table: pd.DataFrame, field: Field, positions_px: Array) -> pd.DataFrame:
    """Add where the sources are, given (n, 2) columns and rows of the field's r frame."""
    ra_deg, dec_deg = frame_wcs(field, "r").wcs_pix2world(positions_px, 0).T
    return table.assign(ra=ra_deg, dec=dec_deg, run=field.run, camcol=field.camcol, field=field.field)


def _catalogued_r_mag(labels: npt.NDArray[np.str_], rng: np.random.Generator) -> Array:
    """Draw r, normal per class and cut at R_MAG_RANGE."""
    mean, width = np.array([_R_MAG[label] for label in labels]).T
    low, high = (ndtr((limit - mean) / width) for limit in R_MAG_RANGE)
    return mean + width * ndtri(rng.uniform(low, high))


def _sources(
    labels: npt.NDArray[np.str_], r_mag: Array, rng: np.random.Generator, *, red_dwarf_share: float = 0.0
) -> pd.DataFrame:
    """Draw what each source is like, without where it is."""
    colours = np.empty((len(labels), 4))
    for label in CLASSES:
        chosen = labels == label
        colours[chosen] = _draw_colours(COLOUR_LOCI[label], label, int(chosen.sum()), rng)
    red = (labels == "STAR") & (rng.uniform(size=len(labels)) < red_dwarf_share)
    colours[red] = _draw_colours(_RED_DWARFS, "STAR", int(red.sum()), rng)
    table = pd.DataFrame({"class": labels, "r": r_mag})
    table["g"] = table["r"] + colours[:, 1]
    table["u"] = table["g"] + colours[:, 0]
    table["i"] = table["r"] - colours[:, 2]
    table["z"] = table["i"] - colours[:, 3]
    return table.join(_draw_shapes(table, rng)).assign(redshift=_draw_redshift(table, rng))


def _draw_colours(locus: tuple[tuple[float, float, float], ...], label: str, n: int, rng: np.random.Generator) -> Array:
    """Colours u-g, g-r, r-i, i-z, (n, 4): each of two half-normals that meet the locus' three percentiles."""
    correlation = np.eye(4)
    # Of normal variables with a rank correlation r, the linear one is 2 sin(pi r / 6).
    correlation[np.triu_indices(4, 1)] = 2 * np.sin(np.pi / 6 * np.array(_COLOUR_CORRELATIONS[label]))
    correlation = correlation + correlation.T - np.eye(4)
    sigmas = np.clip(rng.standard_normal((n, 4)) @ np.linalg.cholesky(correlation).T, -3, 3)
    low, median, high = np.array(locus).T
    return median + sigmas * np.where(sigmas > 0, high - median, median - low)


def _draw_shapes(table: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
    """Galaxies: red ones are mostly bulge, blue ones discs seen from any side; the rest are points."""
    n, galaxy = len(table), (table["class"] == "GALAXY").to_numpy()
    r_mag, g_r = table["r"].to_numpy(), (table["g"] - table["r"]).to_numpy()
    size_arcsec = 2.8 * 10 ** (-0.13 * (r_mag - 17) + 0.14 * np.clip(rng.standard_normal(n), -2.5, 2.5))
    size_arcsec = np.clip(size_arcsec, np.where(r_mag < R_MAG_RANGE[1], 0.9, 0.25), 9.0)
    elliptical = (g_r + 0.12 * rng.standard_normal(n) > 0.80) & (r_mag <= R_MAG_RANGE[1])
    cos_inclination, roundness = rng.uniform(size=n), rng.uniform(0.55, 1.0, n)
    disc_ratio = np.sqrt(0.16**2 + (1 - 0.16**2) * cos_inclination**2)
    bulge_fraction = np.where(elliptical, 1.0, rng.beta(1.6, 4.5, n))
    bulge_fraction[r_mag > R_MAG_RANGE[1]] = 0.0  # too faint and small to tell, and cheaper to draw
    bulge_size = np.where(elliptical, size_arcsec, size_arcsec * rng.uniform(0.2, 0.45, n))
    return pd.DataFrame(
        {
            "size_arcsec": np.where(galaxy, size_arcsec, 0.0),
            "bulge_size_arcsec": np.where(galaxy, bulge_size, 0.0),
            "axis_ratio": np.where(galaxy, np.where(elliptical, roundness, disc_ratio), 1.0),
            "pa_deg": np.where(galaxy, rng.uniform(0, 180, n), 0.0),
            "bulge_fraction": np.where(galaxy, bulge_fraction, 0.0),
        }
    )


def _draw_redshift(table: pd.DataFrame, rng: np.random.Generator) -> Array:
    """Redshifts like those of each class in SDSS DR14: stars near 0, galaxies farther when fainter, quasars to 4."""
    normal = np.clip(rng.standard_normal(len(table)), -2.5, 2.5)
    galaxy = 0.08 * 10 ** (0.16 * (table["r"].to_numpy() - 17) + 0.18 * normal)
    quasar = np.clip(1.23 + normal * np.where(normal > 0, 0.68, 0.50), 0.05, 4.0)
    label = table["class"].to_numpy()
    return np.select([label == "GALAXY", label == "QSO"], [galaxy, quasar], 2e-4 * normal)


def _observed_mag(true_mag: Array, band: str, rng: np.random.Generator) -> Array:
    """Asinh magnitude of the flux with sky noise and 1 % calibration noise.

    Source: Lupton, Gunn & Szalay 1999, AJ 118, 1406.
    """
    flux = 10 ** (-0.4 * true_mag)  # maggies
    sky_noise = 10 ** (-0.4 * DEPTH_MAG[band]) / 5
    flux = flux + np.hypot(sky_noise, 0.01 * flux) * rng.standard_normal(len(flux))
    softening = _ASINH_SOFTENING[band]
    return -2.5 / np.log(10) * (np.arcsinh(flux / (2 * softening)) + np.log(softening))
