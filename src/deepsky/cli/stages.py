"""One verb per DVC stage, in the order of dvc.yaml."""

from pathlib import Path

import click

from deepsky.cli.group import PATH, cli, data_sections, experiment, group_by, on_bad_file, path_option
from deepsky.config import read_entries, read_recipes, read_section


@cli.command()
@path_option("query", "folder of deepsky query's answer, for survey: sdss")
@path_option("out", "catalogue CSV to write")
def catalogue(query: Path, out: Path) -> None:
    """Stage catalogue: which objects."""
    from deepsky.archives.wanted import ArchiveParams
    from deepsky.simulation.sky import CatalogueParams
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
    from deepsky.simulation.sky import CatalogueParams
    from deepsky.stages import fetch as stage

    stage.run(
        read_section("catalogue", CatalogueParams),
        read_section("archive", ArchiveParams),
        read_section("download", DownloadParams),
        on_bad_file(),
        catalogue=catalogue,
        out=out,
        retry_failed=retry_failed,
    )


@cli.command()
@click.argument("name")
@path_option("folder", "folder of FITS frames")
@path_option("catalogue", "catalogue CSV")
@path_option("png", "folder of the pictures to write")
@path_option("packed", "folder that gets NAME_frames, NAME_rgb and NAME_cutouts")
def render(name: str, folder: Path, catalogue: Path, png: Path, packed: Path) -> None:
    """Stage render: plots, composites and cutouts of the frames NAME."""
    from deepsky.stages import render as stage

    params = read_section(f"frames.{name}", stage.FramesParams)
    stage.run(
        name,
        params,
        on_bad_file(),
        folder=folder,
        catalogue=catalogue,
        png=png,
        packed=packed,
    )


@cli.command()
@click.argument("name")
@path_option("folder", "folder of images")
@path_option("labels", "label table CSV")
@path_option("out", "packed dataset to write")
def pack(name: str, folder: Path, labels: Path, out: Path) -> None:
    """Stage pack: the images NAME and their labels as one packed dataset."""
    from deepsky.stages import pack as stage

    params = read_section(f"images.{name}", stage.ImagesParams)
    stage.run(name, params, on_bad_file(), folder=folder, labels=labels, out=out)


@cli.command()
@click.argument("dataset")
@path_option("packed", "packed dataset")
@path_option("out", "split CSV to write")
def split(dataset: str, packed: Path, out: Path) -> None:
    """Stage split: train, validation and test rows of DATASET by sky group."""
    from deepsky.datasets.splits import SplitParams
    from deepsky.stages import split as stage

    stage.run(group_by(dataset), read_section("split", SplitParams), packed=packed, out=out)


@cli.command()
@click.argument("network")
@path_option("out", "folder of the weights to write")
def weights(network: str, out: Path) -> None:
    """Stage weights: the pretrained (or random) weights of NETWORK."""
    from deepsky.networks.pretrained import WeightsParams
    from deepsky.stages import weights as stage

    stage.run(network, read_section("weights", WeightsParams), out=out)


@cli.command()
@click.argument("network")
@path_option("packed", "packed dataset")
@path_option("weights", "folder of the network's weights")
@path_option("out", "features .npy to write")
def features(network: str, packed: Path, weights: Path, out: Path) -> None:
    """Stage features: the frozen NETWORK's view of every distinct image."""
    from deepsky.networks.backbone import BackboneParams
    from deepsky.stages import features as stage
    from deepsky.training.predict import FeaturesParams

    backbone = read_section(f"backbones.{network}", BackboneParams)
    params = read_section("features", FeaturesParams)
    stage.run(network, backbone, params, packed=packed, weights=weights, out=out)


@cli.command()
@click.argument("dataset")
@click.argument("network")
@path_option("packed", "packed dataset")
@path_option("split", "split CSV")
@path_option("features", "features .npy")
@path_option("weights", "folder of the network's weights")
@path_option("out", "folder of the trained network to write")
@click.option("--tuned", is_flag=True, help="as section tuned of params.yaml says, not as the reference")
def train(dataset: str, network: str, tuned: bool, **paths: Path) -> None:
    """Stage train: a head on the cached features of NETWORK for DATASET."""
    from deepsky.networks.backbone import BackboneParams
    from deepsky.stages import train as stage
    from deepsky.training.fit import TrainParams

    adopted = read_section(f"tuned.heads.{dataset}-{network}", stage.TunedHead) if tuned else None
    params = adopted.train if adopted else read_section("train", TrainParams)
    backbone = read_section(f"backbones.{network}", BackboneParams)
    stage.run(dataset, network, params, backbone, experiment(), data_sections(dataset), adopted=adopted, **paths)


@cli.command("train-scratch")
@click.argument("dataset")
@click.argument("network")
@path_option("packed", "packed dataset")
@path_option("split", "split CSV")
@path_option("out", "folder of the trained network to write")
@click.option("--tuned", is_flag=True, help="as section tuned of params.yaml says, not as the reference")
def train_scratch(dataset: str, network: str, tuned: bool, **paths: Path) -> None:
    """Stage train_scratch: NETWORK trained from DATASET's images."""
    from deepsky.stages import train_scratch as stage
    from deepsky.training.fit import ScratchParams

    adopted = read_section(f"tuned.scratch.{dataset}-{network}", stage.TunedScratch) if tuned else None
    params = adopted.scratch if adopted else read_section(f"scratch.{network}", ScratchParams)
    stage.run(dataset, network, params, experiment(), data_sections(dataset), adopted=adopted, **paths)


@cli.command()
@path_option("trained", "folder of the trained networks")
@path_option("out", "folder of the evaluations to write")
@path_option("metrics", "summary JSON to write")
def evaluate(trained: Path, out: Path, metrics: Path) -> None:
    """Stage evaluate: test figures of every run, into files and into MLflow."""
    from deepsky.stages import evaluate as stage
    from deepsky.tuning.adopt import read_adopted

    networks = [*read_entries("backbones"), *read_entries("scratch")]
    recipes = [(recipe["dataset"], key) for way in read_recipes().values() for key, recipe in way.items()]
    stage.run(
        list(read_entries("datasets")),
        networks,
        list(read_adopted()),
        recipes,
        experiment(),
        trained=trained,
        out=out,
        metrics=metrics,
    )


@cli.command()
@path_option("evaluation", "folder of the evaluations")
@path_option("metrics", "summary JSON")
@path_option("out", "folder of the report to write")
def report(evaluation: Path, metrics: Path, out: Path) -> None:
    """Stage report: one page that compares every run."""
    from deepsky.stages import report as stage

    stage.run(evaluation=evaluation, metrics=metrics, out=out)
