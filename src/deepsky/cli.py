"""The command line: parse, call, print. One verb per DVC stage, and what a person runs beside them."""

import os
import sys
from pathlib import Path
from typing import Any, Literal

import click

from deepsky.archives.addresses import RELEASES, Release
from deepsky.config import read_choice, read_section, read_yaml
from deepsky.errors import DeepSkyError


class _Path(click.Path):
    """A path argument that arrives as pathlib.Path."""

    def __init__(self) -> None:
        super().__init__(path_type=Path)


PATH = _Path()


def main() -> None:
    """Run the command line; a problem the user can mend becomes one line and exit code 1."""
    # Read when keras first imports TensorFlow, and by OpenCV: a problem is one line of ours.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")
    try:
        cli.main(standalone_mode=False)
    except click.exceptions.Exit as stop:
        sys.exit(stop.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        sys.exit("stopped; nothing half-written was left behind")
    except DeepSkyError as error:
        sys.exit(f"error: {error}")
    except OSError as error:
        place = error.filename or "the output"
        reason = " ".join(str(error.strerror or error).split())
        sys.exit(f"error: {place}: {reason}; free space or permission is missing, mend it and rerun")


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def cli() -> None:
    """Classify deep-space objects from images. `make help` lists the everyday targets."""


def _on_bad_file() -> Literal["stop", "skip"]:
    return "skip" if read_choice("on_bad_file", ("stop", "skip")) == "skip" else "stop"


def _experiment() -> str:
    from deepsky.tracking.store import TrackingParams

    return read_section("tracking", TrackingParams).experiment


def _data_sections(dataset: str) -> dict[str, Any]:
    return {"split": {**read_yaml("split"), **read_yaml(f"datasets.{dataset}")}}


def _path_option(name: str, what: str) -> Any:
    return click.option(f"--{name}", required=True, type=PATH, help=what)


# ---- stages, in the order of dvc.yaml ----


@cli.command()
@_path_option("query", "folder of deepsky query's answer, for survey: sdss")
@_path_option("out", "catalogue CSV to write")
def catalogue(query: Path, out: Path) -> None:
    """Stage catalogue: which objects."""
    from deepsky.archives.wanted import ArchiveParams
    from deepsky.catalogue.simulated import CatalogueParams
    from deepsky.stages import catalogue as stage

    release = read_section("archive", ArchiveParams).release
    stage.run(read_section("catalogue", CatalogueParams), release, query=query, out=out)


@cli.command()
@click.option("--catalogue", default="data/catalogue.csv", show_default=True, type=PATH, help="catalogue CSV")
@click.option("--out", default="data/raw", show_default=True, type=PATH, help="folder of the raw files")
@click.option("--retry-failed", is_flag=True, help="only the files that failed last time (OUT/failures.csv)")
def fetch(catalogue: Path, out: Path, retry_failed: bool) -> None:
    """Stage fetch: the raw frames and cutouts of the catalogue's objects."""
    from deepsky.archives.http import DownloadParams
    from deepsky.archives.wanted import ArchiveParams
    from deepsky.catalogue.simulated import CatalogueParams
    from deepsky.stages import fetch as stage

    stage.run(
        read_section("catalogue", CatalogueParams),
        read_section("archive", ArchiveParams),
        read_section("download", DownloadParams),
        _on_bad_file(),
        catalogue=catalogue,
        out=out,
        retry_failed=retry_failed,
    )


@cli.command()
@click.argument("name")
@_path_option("folder", "folder of FITS frames")
@_path_option("catalogue", "catalogue CSV")
@_path_option("png", "folder of the pictures to write")
@_path_option("packed", "folder that gets NAME_frames, NAME_rgb and NAME_cutouts")
def render(name: str, folder: Path, catalogue: Path, png: Path, packed: Path) -> None:
    """Stage render: plots, composites and cutouts of the frames NAME."""
    from deepsky.stages import render as stage

    params = read_section(f"frames.{name}", stage.FramesParams)
    stage.run(
        name,
        params,
        _on_bad_file(),
        folder=folder,
        catalogue=catalogue,
        png=png,
        packed=packed,
    )


@cli.command()
@click.argument("name")
@_path_option("folder", "folder of images")
@_path_option("labels", "label table CSV")
@_path_option("out", "packed dataset to write")
def pack(name: str, folder: Path, labels: Path, out: Path) -> None:
    """Stage pack: the images NAME and their labels as one packed dataset."""
    from deepsky.stages import pack as stage

    params = read_section(f"images.{name}", stage.ImagesParams)
    stage.run(name, params, _on_bad_file(), folder=folder, labels=labels, out=out)


@cli.command()
@click.argument("dataset")
@_path_option("packed", "packed dataset")
@_path_option("out", "split CSV to write")
def split(dataset: str, packed: Path, out: Path) -> None:
    """Stage split: train, validation and test rows of DATASET by sky group."""
    from deepsky.splits import DatasetParams, SplitParams
    from deepsky.stages import split as stage

    group_by = read_section(f"datasets.{dataset}", DatasetParams).group_by
    stage.run(group_by, read_section("split", SplitParams), packed=packed, out=out)


@cli.command()
@click.argument("network")
@_path_option("out", "folder of the weights to write")
def weights(network: str, out: Path) -> None:
    """Stage weights: the pretrained (or random) weights of NETWORK."""
    from deepsky.networks.pretrained import WeightsParams
    from deepsky.stages import weights as stage

    stage.run(network, read_section("weights", WeightsParams), out=out)


@cli.command()
@click.argument("network")
@_path_option("packed", "packed dataset")
@_path_option("weights", "folder of the network's weights")
@_path_option("out", "features .npy to write")
def features(network: str, packed: Path, weights: Path, out: Path) -> None:
    """Stage features: the frozen NETWORK's view of every distinct image."""
    from deepsky.networks.backbone import BackboneParams
    from deepsky.stages import features as stage
    from deepsky.training.features import FeaturesParams

    backbone = read_section(f"backbones.{network}", BackboneParams)
    params = read_section("features", FeaturesParams)
    stage.run(network, backbone, params, packed=packed, weights=weights, out=out)


@cli.command()
@click.argument("dataset")
@click.argument("network")
@_path_option("packed", "packed dataset")
@_path_option("split", "split CSV")
@_path_option("features", "features .npy")
@_path_option("weights", "folder of the network's weights")
@_path_option("out", "folder of the trained network to write")
@click.option("--tuned", is_flag=True, help="as section tuned of params.yaml says, not as the reference")
def train(dataset: str, network: str, tuned: bool, **paths: Path) -> None:
    """Stage train: a head on the cached features of NETWORK for DATASET."""
    from deepsky.networks.backbone import BackboneParams
    from deepsky.stages import train as stage
    from deepsky.training.fit import TrainParams

    adopted = read_section(f"tuned.heads.{dataset}-{network}", stage.TunedHead) if tuned else None
    params = adopted.train if adopted else read_section("train", TrainParams)
    backbone = read_section(f"backbones.{network}", BackboneParams)
    stage.run(dataset, network, params, backbone, _experiment(), _data_sections(dataset), adopted=adopted, **paths)


@cli.command("train-scratch")
@click.argument("dataset")
@click.argument("network")
@_path_option("packed", "packed dataset")
@_path_option("split", "split CSV")
@_path_option("out", "folder of the trained network to write")
@click.option("--tuned", is_flag=True, help="as section tuned of params.yaml says, not as the reference")
def train_scratch(dataset: str, network: str, tuned: bool, **paths: Path) -> None:
    """Stage train_scratch: NETWORK trained from DATASET's images."""
    from deepsky.stages import train_scratch as stage
    from deepsky.training.fit import ScratchParams

    adopted = read_section(f"tuned.scratch.{dataset}-{network}", stage.TunedScratch) if tuned else None
    params = adopted.scratch if adopted else read_section(f"scratch.{network}", ScratchParams)
    stage.run(dataset, network, params, _experiment(), _data_sections(dataset), adopted=adopted, **paths)


@cli.command()
@_path_option("trained", "folder of the trained networks")
@_path_option("out", "folder of the evaluations to write")
@_path_option("metrics", "summary JSON to write")
def evaluate(trained: Path, out: Path, metrics: Path) -> None:
    """Stage evaluate: test figures of every run, into files and into MLflow."""
    from deepsky.stages import evaluate as stage
    from deepsky.tuning.adopt import read_adopted

    networks = [*read_yaml("backbones"), *read_yaml("scratch")]
    stage.run(
        list(read_yaml("datasets")),
        networks,
        list(read_adopted()),
        _experiment(),
        trained=trained,
        out=out,
        metrics=metrics,
    )


@cli.command()
@_path_option("evaluation", "folder of the evaluations")
@_path_option("metrics", "summary JSON")
@_path_option("out", "folder of the report to write")
def report(evaluation: Path, metrics: Path, out: Path) -> None:
    """Stage report: one page that compares every run."""
    from deepsky.stages import report as stage

    stage.run(evaluation=evaluation, metrics=metrics, out=out)


# ---- beside the stages ----


@cli.command()
@click.option("--jobs", default=1, show_default=True, help="stages side by side, 1 to 4")
@click.argument("targets", nargs=-1)
def repro(jobs: int, targets: tuple[str, ...]) -> None:
    """Bring every stage (or TARGETS) up to date: dvc repro, with independent stages side by side."""
    from deepsky.commands import repro as command

    command.run(jobs, targets)


@cli.command()
@click.option("--sql", type=PATH, help="file with one SELECT statement")
@click.option("--objects-per-class", type=int, help="ask for so many galaxies, quasars and stars")
@click.option("--release", type=click.Choice(RELEASES), help="of SDSS (default: archive.release of params.yaml)")
def query(sql: Path | None, objects_per_class: int | None, release: Release | None) -> None:
    """Ask SDSS which objects to work on: writes data/query/catalogue.csv, for survey: sdss."""
    from deepsky.archives.http import DownloadParams
    from deepsky.archives.wanted import ArchiveParams
    from deepsky.commands import query as command

    chosen = release or read_section("archive", ArchiveParams).release
    command.run(sql, objects_per_class, chosen, read_section("download", DownloadParams))


@cli.group()
def add() -> None:
    """Register your own data: copied, versioned by DVC, entered in params.yaml."""


@add.command("images")
@click.argument("name")
@click.argument("folder", type=PATH)
@click.argument("labels", type=PATH)
@click.option("--id-column", required=True, help="column of LABELS that names each image (its file name's stem)")
@click.option("--label-column", required=True, help="column of LABELS with the class")
@click.option("--size-px", default=224, show_default=True, help="side of the square pictures to learn from")
@click.option("--crop-px", type=int, help="keep the middle square of this side first")
@click.option("--group-column", help="column that says which images belong together")
def add_images(name: str, folder: Path, labels: Path, **options: Any) -> None:
    """Register the images of FOLDER, labelled by the CSV LABELS, as dataset NAME."""
    from deepsky.commands import add as command

    command.add_images(name, folder, labels, **options)


@add.command("frames")
@click.argument("name")
@click.argument("folder", type=PATH)
@click.argument("catalogue", type=PATH)
@click.option("--id-column", help="column of CATALOGUE that names each object; rows are numbered without it")
@click.option("--label-column", default="class", show_default=True, help="column of CATALOGUE with the class")
@click.option("--position", type=click.Choice(["radec", "xy"]), default="radec", show_default=True)
@click.option("--position-band", default="r", show_default=True, help="band whose pixels x and y count, from 0")
@click.option("--bands", default="u,g,r,i,z", show_default=True, help="bands to cut out")
@click.option("--colours", default="i,r,g", show_default=True, help="bands shown as red, green and blue")
@click.option("--cutout-size-px", default=64, show_default=True)
def add_frames(name: str, folder: Path, catalogue: Path, **options: Any) -> None:
    """Register the FITS frames of FOLDER and the objects of CATALOGUE as dataset NAME_cutouts."""
    from deepsky.commands import add as command

    command.add_frames(name, folder, catalogue, **options)


@cli.command()
@click.argument("model", type=PATH)
@click.argument("inputs", nargs=-1, required=True, type=PATH)
@click.option("--catalogue", type=PATH, help="CSV of objects to cut out of the FITS frames INPUTS")
@click.option("--id-column", help="column of the catalogue that names each object; rows are numbered without it")
@click.option("--position", type=click.Choice(["radec", "xy"]), default="radec", show_default=True)
@click.option("--position-band", help="band whose pixels x and y count, from 0 (r, if the network has it)")
@click.option("--csv", "out", type=PATH, help="write a CSV here instead of printing")
def predict(model: Path, inputs: tuple[Path, ...], out: Path | None, **options: Any) -> None:
    """Label images, or the catalogued objects of FITS frames, with the trained network MODEL.h5."""
    from deepsky.commands import predict as command

    command.run(model, inputs, out, **options)


@cli.command()
@click.option("--port", default=5000, show_default=True)
def ui(port: int) -> None:
    """MLflow UI on 127.0.0.1 with every run to compare."""
    from deepsky.commands import ui as command

    command.run(_experiment(), port)


@cli.group()
def tune() -> None:
    """Search hyperparameters: heads on cached features, or the fit of a network trained from the images."""


_storage_option = click.option("--storage", help="URL of the studies' database (default: tune.storage)")


@tune.command("run")
@click.argument("dataset", required=False)
@click.argument("network", required=False)
@click.option("--trials", type=int, help="in total, over all workers and restarts (default: tune.trials)")
@click.option("--study", help="its name (default: DATASET-NETWORK)")
@_storage_option
@click.option("--workers", default=1, show_default=True, help="processes on this machine")
def tune_run(dataset: str | None, network: str | None, **options: Any) -> None:
    """Search for DATASET and NETWORK (defaults under tune in params.yaml); a study begun before goes on."""
    from deepsky.commands import tune as command

    command.run(dataset, network, **options)


@tune.command("adopt")
@click.argument("study")
@click.option("--trial", type=int, help="number of a complete trial (default: the best one)")
@_storage_option
def tune_adopt(study: str, trial: int | None, storage: str | None) -> None:
    """Write what STUDY found into params.yaml; the next dvc repro trains it beside the reference."""
    from deepsky.commands import adopt as command

    command.run(study, trial, storage)


@tune.command("list")
@_storage_option
def tune_list(storage: str | None) -> None:
    """Print the studies, their trials and best values."""
    from deepsky.commands import tune as command

    command.list_studies(storage)


@tune.command("dashboard")
@_storage_option
@click.option("--port", default=8080, show_default=True)
def tune_dashboard(storage: str | None, port: int) -> None:
    """optuna-dashboard on 127.0.0.1."""
    from deepsky.commands import tune as command

    command.dashboard(storage, port)
