"""Stage render: every frame is decompressed once and gives its plot, its share of the composite and the cutouts."""

from collections.abc import Hashable, Mapping
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pandas as pd

from deepsky.catalogue.magnitudes import MAGNITUDES, with_magnitudes
from deepsky.catalogue.positions import COLUMNS, with_positions
from deepsky.catalogue.tables import check_numbers, read_objects
from deepsky.datasets.packed import DatasetCard, create_images, write_rows
from deepsky.errors import DataError
from deepsky.files import whole_folder
from deepsky.formats.params import KINDS, FramesParams
from deepsky.imaging.apertures import measure_middles
from deepsky.imaging.astrometry import is_inside
from deepsky.imaging.badfiles import BadFiles, OnBadFile, keep_images, read_missing, reserve_space
from deepsky.imaging.composite import plot_composite
from deepsky.imaging.conditions import conditions_of
from deepsky.imaging.cutouts import cut_objects, outside, sky_positions
from deepsky.imaging.fields import FIELD_COLUMNS, FieldSearch, SkyField, assign_fields, read_field
from deepsky.imaging.frame_names import stem_of
from deepsky.imaging.frames import Frame
from deepsky.imaging.lupton import lupton_rgb
from deepsky.imaging.pictures import write_png
from deepsky.imaging.stretch import (
    PLOT_HEIGHT_PX,
    PLOT_WIDTH_PX,
    asinh_stretch,
    shrink_to_plot,
    sky_limits,
    to_gray,
)
from deepsky.parallel import mapped
from deepsky.progress import track

_AHEAD = 64  # fields, of a few megabytes each


@dataclass(frozen=True)
class Placed:
    """The objects of a catalogue, each in its field.

    Attributes:
        objects: as the catalogue gives them, with float columns ra and dec, or x and y, and ``image``, the index of
            their field.
        fields: all that there are.
        others: how many files are of each band or filter that was not asked for, or tables.
    """

    objects: pd.DataFrame
    fields: list[SkyField]
    others: Mapping[str, int]


@dataclass(frozen=True)
class _Task:
    """What a worker does: one field, its objects, and where the pictures go."""

    field: SkyField
    image: int  # index of the field's image
    objects: pd.DataFrame  # index: the row in the catalogue's order
    params: FramesParams
    png: Path


@dataclass(frozen=True)
class _Done:
    """What a worker reports: the placed objects of one field, their images, and what went wrong."""

    rows: pd.DataFrame  # index as in the task; ra_deg, dec_deg, edge, and what is known beside the pictures
    errors: list[DataError]
    # By kind. They travel: on a shared disk two machines that map one file undo what the other wrote in the same page.
    images: dict[str, npt.NDArray[Any]] = field(default_factory=dict)
    pixel_scale_arcsec: float = 0.0
    plot_scale_arcsec: float = 0.0


def run(name: str, params: FramesParams, on_bad_file: OnBadFile, *, png: Path, packed: Path) -> None:
    """Render a folder of frames.

    Fields without a catalogued object are not read. Objects of a field of which the archive lacks a band (the folder's
    missing.csv) are left out. All three datasets hold the same objects, in the catalogue's order.

    Args:
        name: the datasets are NAME_frames, NAME_rgb and NAME_cutouts.
        params: their entry of ``datasets.frames``.
        on_bad_file: ``stop`` at the first bad frame or misplaced object, or ``skip`` and list them.
        png: folder of pictures to write: frames, rgb and cutouts.
        packed: folder that gets the three packed datasets.

    Raises:
        DataError: a bad catalogue or missing.csv; a bad frame or misplaced object under ``stop``; nothing left under
            ``skip``.
    """
    bad = BadFiles(on_bad_file)
    placed = placed_objects(params, bad, name)
    with ExitStack() as stack:
        pictures = stack.enter_context(whole_folder(png))
        folders = {kind: stack.enter_context(whole_folder(packed / f"{name}_{kind}")) for kind in KINDS}
        tasks = _tasks(placed, params, pictures)
        arrays = _make_room(tasks, params, pictures, folders)
        done = _work(tasks, bad, arrays)
        bad.refuse_if_nothing_left(sum(len(each.rows) for each in done), params.catalogue)
        _finish(done, tasks, params, bad, folders)


def placed_objects(params: FramesParams, bad: BadFiles, name: str) -> Placed:
    """Read the catalogue and find the field of each object.

    Args:
        params: the entry of ``datasets.frames``.
        bad: meets frames that cannot be read, and objects that lie in none.
        name: of the frames, in what stderr says of objects whose files the archive lacks.

    Raises:
        DataError: a bad catalogue or missing.csv, what ``bad`` does not let pass, or nothing left.
    """
    folder, catalogue = Path(params.folder), Path(params.catalogue)
    objects = read_objects(
        catalogue, id_column=params.id_column, label_column=params.label_column, classes=params.classes
    )
    objects = with_positions(with_magnitudes(objects), catalogue, params.position, params.position_columns)
    if set(FIELD_COLUMNS) <= set(objects.columns):
        check_numbers(objects, catalogue, FIELD_COLUMNS)
    search = FieldSearch(params.reading, bad)
    fields = search.below(folder, read_missing(folder))
    objects["image"] = assign_fields(objects, fields, params.reading, catalogue, bad)
    objects = _without_missing(objects, fields, name, bad)
    bad.refuse_if_nothing_left(len(objects), catalogue)
    lost = objects[objects["image"] < 0]
    for one in lost.to_dict("records"):
        bad.meet(_no_field(one, len(lost), catalogue, folder))
    objects = objects[objects["image"] >= 0].reset_index(drop=True)
    bad.refuse_if_nothing_left(len(objects), catalogue)
    return Placed(objects, fields, search.others)


def _without_missing(objects: pd.DataFrame, fields: list[SkyField], name: str, bad: BadFiles) -> pd.DataFrame:
    """Leave out the objects of fields of which the archive lacks a band."""
    lacking = [number for number, field in enumerate(fields) if field.missing]
    lost = objects["image"].isin(lacking)
    entries = []
    for identity, number in zip(objects.loc[lost, "id"], objects.loc[lost, "image"], strict=True):
        file, reason = next(iter(fields[number].missing.values()))
        entries.append((file, f"object {identity}: {reason}"))
    bad.leave_out(entries, name)
    return objects[~lost]


def _no_field(lost: Mapping[Hashable, Any], n_lost: int, catalogue: Path, folder: Path) -> DataError:
    place = "-".join(str(lost[column]) for column in FIELD_COLUMNS if column in lost)
    of_field = f" of its field {place}" if place else ""
    problem = f"object {lost['id']} lies in no frame{of_field} of {folder} ({n_lost} such)"
    return DataError(catalogue, problem, "add the frames, drop the objects, or set on_bad_file: skip")


def _tasks(placed: Placed, params: FramesParams, png: Path) -> list[_Task]:
    """Give every field that holds objects a task, numbered in the order of the fields' names."""
    columns = ["id", "label", *COLUMNS[params.position]]
    columns += [column for column in (*FIELD_COLUMNS, *MAGNITUDES) if column in placed.objects.columns]
    groups = placed.objects.groupby("image", sort=True)[columns]
    return [
        _Task(placed.fields[cast(int, number)], image, group, params, png)
        for image, (number, group) in enumerate(groups)
    ]


def _make_room(
    tasks: list[_Task], params: FramesParams, png: Path, packed: dict[str, Path]
) -> dict[str, npt.NDArray[Any]]:
    """Create the arrays, by kind, and the picture folders that the workers fill."""
    kinds = [f"frames/{band}" for band in params.bands] + ["rgb"] + [f"cutouts/{label}" for label in params.classes]
    for kind in kinds:
        (png / kind).mkdir(parents=True)
    n_objects, size_px = sum(len(task.objects) for task in tasks), params.cutout_size_px
    n_plots = len(tasks) * len(params.frame_bands)
    plot, cutout = (PLOT_HEIGHT_PX, PLOT_WIDTH_PX), (n_objects, size_px, size_px, len(params.bands))
    arrays: dict[str, npt.NDArray[Any]] = {
        "frames": create_images(packed["frames"], (n_plots, *plot, 1), np.uint8),
        "rgb": create_images(packed["rgb"], (len(tasks), *plot, 3), np.uint8),
        "cutouts": create_images(packed["cutouts"], cutout, np.float32),
    }
    for folder in packed.values():
        reserve_space(folder / "images.npy")
    return arrays


def _work(tasks: list[_Task], bad: BadFiles, arrays: dict[str, npt.NDArray[Any]]) -> list[_Done]:
    """Render all fields, a process per core or on a cluster, and fill the arrays."""
    done = []
    results = mapped(partial(_render_field, on_bad_file=bad.policy), tasks, n_ahead=_AHEAD, locally="processes")
    with closing(results):  # before the temporary folders go
        tracked = track(results, "rendering fields", len(tasks))
        for task, each in zip(tasks, tracked, strict=True):
            if len(each.rows):
                arrays["frames"][_plots_of(task.image, task.params)] = each.images["frames"]
                arrays["rgb"][task.image] = each.images["rgb"]
                arrays["cutouts"][each.rows.index.to_numpy()] = each.images["cutouts"]
            done.append(replace(each, images={}))
    for each in done:
        for error in each.errors:
            bad.meet(error)
    return done


def _render_field(task: _Task, on_bad_file: OnBadFile) -> _Done:
    """Render one field in a worker.

    Under ``stop`` the first problem is raised here, so that the others are not rendered in vain; under ``skip``
    problems come back as values.
    """
    try:
        done = _rendered(task)
    except DataError as error:
        done = _Done(task.objects.iloc[:0], [error])
    if on_bad_file == "stop" and done.errors:
        raise done.errors[0]
    return done


def _rendered(task: _Task) -> _Done:
    params = task.params
    frames = read_field(task.field, params.reading)
    rows, errors = _place(task, frames[params.position_band])
    if not len(rows):
        return _Done(rows, errors)
    rows = rows.assign(**_conditions(frames))
    images = _write_plots(task, frames)
    images["cutouts"], rows["edge"] = _write_cutouts(task, frames, rows)
    scale_arcsec = frames[params.position_band].astrometry.pixel_scale_arcsec
    rows = _measured(rows, images["cutouts"], params, scale_arcsec)
    height, width = frames[params.frame_bands[0]].flux_nmgy.shape
    shrink = float(np.sqrt(height * width / (PLOT_HEIGHT_PX * PLOT_WIDTH_PX)))
    return _Done(rows, errors, images, scale_arcsec, scale_arcsec * shrink)


def _place(task: _Task, reference: Frame) -> tuple[pd.DataFrame, list[DataError]]:
    """Find the objects on the sky; those whose centre is outside the reference band's frame are errors."""
    objects = task.objects
    ra_deg, dec_deg = sky_positions(objects, reference.astrometry, task.params.position)
    height, width = reference.flux_nmgy.shape
    held = is_inside(reference.astrometry.depth(ra_deg, dec_deg, (height, width)))
    errors = [outside(task.params.catalogue, identity, reference.path) for identity in objects.loc[~held, "id"]]
    x_px, y_px = reference.astrometry.to_pixels(ra_deg, dec_deg)
    return objects.assign(ra_deg=ra_deg, dec_deg=dec_deg, x_px=x_px, y_px=y_px)[held], errors


def _conditions(frames: Mapping[str, Frame]) -> dict[str, float]:
    """Return ``sky_u``, ``noise_u``, ``psf_u`` and so on: what all objects of a field share."""
    measured = {band: conditions_of(frame) for band, frame in frames.items()}
    return {f"{what}_{band}": value for band, one in measured.items() for what, value in asdict(one).items()}


def _write_plots(task: _Task, frames: dict[str, Frame]) -> dict[str, npt.NDArray[Any]]:
    """Write the whole-frame plot of every band and the composite; return what of them is packed."""
    params, limits, plots = task.params, {}, {}
    for band, frame in frames.items():
        small = shrink_to_plot(frame.flux_nmgy)
        limits[band] = sky_limits(small)
        plot = to_gray(asinh_stretch(small, limits[band]))
        write_png(task.png / "frames" / band / f"{stem_of(frame.path)}.png", plot)
        plots[band] = plot[..., np.newaxis]
    composite = plot_composite(
        [frames[band] for band in params.rgb_bands],
        [limits[band] for band in params.rgb_bands],
        frames[params.position_band],
    )
    write_png(task.png / "rgb" / f"{task.field.name}.png", composite)
    return {"frames": np.stack([plots[band] for band in params.frame_bands]), "rgb": composite}


def _plots_of(image: int, params: FramesParams) -> range:
    """Return where the plots of one field stand, a band after the other."""
    n_bands = len(params.frame_bands)
    return range(image * n_bands, (image + 1) * n_bands)


def _write_cutouts(
    task: _Task, frames: dict[str, Frame], rows: pd.DataFrame
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
    """Write the colour picture of every object; return the flux, and which lie at an edge."""
    params = task.params
    cutouts = cut_objects(
        [frames[band] for band in params.bands],
        rows["ra_deg"].to_numpy(),
        rows["dec_deg"].to_numpy(),
        params.cutout_size_px,
    )
    colour = lupton_rgb(cutouts.flux_nmgy[..., [params.bands.index(band) for band in params.colour_bands]])
    for identity, label, picture in zip(rows["id"], rows["label"], colour, strict=True):
        write_png(task.png / "cutouts" / label / f"{identity}.png", picture)
    return cutouts.flux_nmgy, cutouts.edge


def _measured(
    rows: pd.DataFrame, cutouts: npt.NDArray[np.float32], params: FramesParams, scale_arcsec: float
) -> pd.DataFrame:
    """Add how bright and how large the objects are in the band of the positions; at an edge nothing is measured."""
    if params.position_band not in params.bands:
        return rows
    ratio, half_px = measure_middles(cutouts[..., params.bands.index(params.position_band)])
    measured = rows.assign(snr=ratio.round(3), half_light_arcsec=(half_px * scale_arcsec).round(4))
    measured.loc[measured["edge"], ["snr", "half_light_arcsec"]] = np.nan
    return measured


def _finish(
    done: list[_Done],
    tasks: list[_Task],
    params: FramesParams,
    bad: BadFiles,
    packed: dict[str, Path],
) -> None:
    """Write the rows beside each array, after dropping the images of what was skipped."""
    useful = [(task, each) for task, each in zip(tasks, done, strict=True) if len(each.rows)]
    tables = [_identified(each.rows, task.field, image) for image, (task, each) in enumerate(useful)]
    rows = pd.concat(tables).sort_index()
    kept_fields = [task.image for task, _ in useful]
    kept_plots = [plot for image in kept_fields for plot in _plots_of(image, params)]
    keep_images(packed["frames"] / "images.npy", kept_plots)
    keep_images(packed["rgb"] / "images.npy", kept_fields)
    keep_images(packed["cutouts"] / "images.npy", rows.index.to_list())
    scale_arcsec, plot_scale_arcsec = useful[0][1].pixel_scale_arcsec, useful[0][1].plot_scale_arcsec
    of_plots = params.frame_bands if len(params.frame_bands) == 1 else ("any",)
    plot = DatasetCard("uint8", of_plots, (), params.classes, plot_scale_arcsec, len(bad.skipped))
    cards = {
        "frames": plot,
        "rgb": replace(plot, bands=params.rgb_bands),
        "cutouts": replace(
            plot,
            kind="flux",
            bands=params.bands,
            colour_bands=params.colour_bands,
            pixel_scale_arcsec=scale_arcsec,
        ),
    }
    own = {"frames": _on_plots(rows, params), "rgb": rows, "cutouts": rows.assign(image=np.arange(len(rows)))}
    for kind, card in cards.items():
        write_rows(packed[kind], own[kind], card, bad.skipped)


def _on_plots(rows: pd.DataFrame, params: FramesParams) -> pd.DataFrame:
    """Point each object into the plots of its field; where several bands are pooled, its id says which one."""
    bands = params.frame_bands
    if len(bands) == 1:
        return rows
    of_bands = [
        rows.assign(id=rows["id"].astype(str) + f"-{band}", image=rows["image"] * len(bands) + place)
        for place, band in enumerate(bands)
    ]
    return pd.concat(of_bands).sort_index(kind="stable")


def _identified(rows: pd.DataFrame, field: SkyField, image: int) -> pd.DataFrame:
    """Add run, camcol and field as the frame says; where it does not, the catalogue's stay for the splits."""
    sdss = dict(zip(FIELD_COLUMNS, field.sdss, strict=True)) if field.sdss else {}
    return rows.assign(image=image, group=field.name, **sdss)
