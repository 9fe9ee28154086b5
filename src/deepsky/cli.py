"""The command line: parse, call, print. One verb per DVC stage, and what a person runs beside them."""

import sys
from pathlib import Path
from typing import Any

import click

from deepsky.config import read_choice, read_section, read_yaml
from deepsky.errors import DeepSkyError


class _Path(click.Path):
    """A path argument that arrives as pathlib.Path."""

    def __init__(self) -> None:
        super().__init__(path_type=Path)


PATH = _Path()


def main() -> None:
    """Run the command line; a problem the user can mend becomes one line and exit code 1."""
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
        sys.exit(f"error: {place}: {error.strerror or error}; free space or permission is missing, mend it and rerun")


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def cli() -> None:
    """Classify deep-space objects from images. `make help` lists the everyday targets."""


def _path_option(name: str, what: str) -> Any:
    return click.option(f"--{name}", required=True, type=PATH, help=what)


# ---- stages, in the order of dvc.yaml ----


@cli.command()
@_path_option("out", "catalogue CSV to write")
def catalogue(out: Path) -> None:
    """Stage catalogue: which objects."""
    from deepsky.catalogue.simulated import CatalogueParams
    from deepsky.stages import catalogue as stage

    stage.run(read_section("catalogue", CatalogueParams), out=out)


@cli.command()
@_path_option("catalogue", "catalogue CSV")
@_path_option("out", "folder of the raw files")
def fetch(catalogue: Path, out: Path) -> None:
    """Stage fetch: the raw frames and cutouts of the catalogue's objects."""
    from deepsky.catalogue.simulated import CatalogueParams
    from deepsky.stages import fetch as stage

    stage.run(read_section("catalogue", CatalogueParams), catalogue=catalogue, out=out)


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
        read_choice("on_bad_file", ("stop", "skip")),
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
    stage.run(name, params, read_choice("on_bad_file", ("stop", "skip")), folder=folder, labels=labels, out=out)


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
    from deepsky.stages import features as stage

    backbone = read_section(f"backbones.{network}", stage.BackboneParams)
    params = read_section("features", stage.FeaturesParams)
    stage.run(network, backbone, params, packed=packed, weights=weights, out=out)


@cli.command()
@click.argument("dataset")
@click.argument("network")
@_path_option("packed", "packed dataset")
@_path_option("split", "split CSV")
@_path_option("features", "features .npy")
@_path_option("weights", "folder of the network's weights")
@_path_option("out", "folder of the trained network to write")
def train(dataset: str, network: str, packed: Path, split: Path, features: Path, weights: Path, out: Path) -> None:
    """Stage train: a head on the cached features of NETWORK for DATASET."""
    from deepsky.stages import train as stage

    stage.run(
        dataset,
        network,
        read_section("train", stage.TrainParams),
        read_section(f"backbones.{network}", stage.BackboneParams),
        read_yaml("tracking.experiment"),
        packed=packed,
        split=split,
        features=features,
        weights=weights,
        out=out,
    )


@cli.command("train-scratch")
@click.argument("dataset")
@click.argument("network")
@_path_option("packed", "packed dataset")
@_path_option("split", "split CSV")
@_path_option("out", "folder of the trained network to write")
def train_scratch(dataset: str, network: str, packed: Path, split: Path, out: Path) -> None:
    """Stage train_scratch: NETWORK trained from DATASET's images."""
    from deepsky.stages import train_scratch as stage

    params = read_section(f"scratch.{network}", stage.ScratchParams)
    experiment = read_yaml("tracking.experiment")
    stage.run(dataset, network, params, experiment, packed=packed, split=split, out=out)


@cli.command()
@_path_option("trained", "folder of the trained networks")
@_path_option("out", "folder of the evaluations to write")
@_path_option("metrics", "summary JSON to write")
def evaluate(trained: Path, out: Path, metrics: Path) -> None:
    """Stage evaluate: test figures of every run, into files and into MLflow."""
    from deepsky.stages import evaluate as stage

    networks = [*read_yaml("backbones"), *read_yaml("scratch")]
    stage.run(
        list(read_yaml("datasets")),
        networks,
        read_yaml("tracking.experiment"),
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
def repro(jobs: int) -> None:
    """Bring every stage up to date: dvc repro, with independent stages side by side."""
    from deepsky.commands import repro as command

    command.run(jobs)
