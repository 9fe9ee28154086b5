"""Verbs of the published collections, and of the recipes that train on any dataset."""

from pathlib import Path

import click

from deepsky.cli.group import cli, data_sections, experiment, on_bad_file, path_option
from deepsky.config import read_section


@cli.command()
@path_option("out", "folder that gets galaxy_zoo, galaxy_zoo1 and Galaxy10_DECals.h5")
def simulate(out: Path) -> None:
    """Stage simulate: stand-ins for the published collections, drawn from a seed."""
    from deepsky.stages import simulate as stage

    stage.run(read_section("simulate", stage.SimulateParams), out=out)


@cli.command("pack-collection")
@click.argument("name")
@path_option("source", "file or folder as it was published")
@path_option("out", "packed dataset to write")
def pack_collection(name: str, source: Path, out: Path) -> None:
    """Stage pack_collection: the published collection NAME as one packed dataset."""
    from deepsky.formats.collection import CollectionParams
    from deepsky.stages import pack_collection as stage

    params = read_section(f"collections.{name}", CollectionParams)
    stage.run(name, params, on_bad_file(), source=source, out=out)


@cli.command("frozen-features")
@click.argument("recipe")
@path_option("packed", "packed dataset")
@path_option("split", "split CSV")
@path_option("weights", "folder of the backbone's weights")
@path_option("out", "folder of the features to write")
def frozen_features(recipe: str, **paths: Path) -> None:
    """Stage frozen_features: what RECIPE's frozen backbone sees of the images and of their augmented views."""
    from deepsky.stages import frozen_features as stage
    from deepsky.training.predict import FeaturesParams
    from deepsky.training.recipes import FrozenParams

    params = read_section(f"recipes.frozen.{recipe}", FrozenParams)
    stage.run(params, read_section("features", FeaturesParams), **paths)


@cli.command()
@click.argument("recipe")
@path_option("packed", "packed dataset")
@path_option("split", "split CSV")
@path_option("features", "folder of the features")
@path_option("weights", "folder of the backbone's weights")
@path_option("out", "folder of the trained network to write")
def frozen(recipe: str, **paths: Path) -> None:
    """Stage frozen: a head on the cached views of RECIPE's backbone."""
    from deepsky.stages import frozen as stage
    from deepsky.training.recipes import FrozenParams

    params = read_section(f"recipes.frozen.{recipe}", FrozenParams)
    stage.run(recipe, params, experiment(), data_sections(params.dataset), **paths)


@cli.command("fine-tune")
@click.argument("recipe")
@path_option("packed", "packed dataset")
@path_option("split", "split CSV")
@path_option("weights", "folder of the backbone's weights")
@path_option("out", "folder of the trained network to write")
def fine_tune(recipe: str, **paths: Path) -> None:
    """Stage fine_tune: RECIPE's pretrained backbone, trained on from its weights."""
    from deepsky.stages import fine_tune as stage
    from deepsky.training.recipes import FineTuneParams

    params = read_section(f"recipes.fine_tune.{recipe}", FineTuneParams)
    stage.run(recipe, params, experiment(), data_sections(params.dataset), **paths)


@cli.command("from-scratch")
@click.argument("recipe")
@path_option("packed", "packed dataset")
@path_option("split", "split CSV")
@path_option("out", "folder of the trained network to write")
def from_scratch(recipe: str, **paths: Path) -> None:
    """Stage from_scratch: RECIPE's network, trained from the images alone."""
    from deepsky.stages import from_scratch as stage
    from deepsky.training.recipes import FromScratchParams

    params = read_section(f"recipes.from_scratch.{recipe}", FromScratchParams)
    stage.run(recipe, params, experiment(), data_sections(params.dataset), **paths)


@cli.command()
@click.argument("recipe")
@click.option("--folds", default=5, show_default=True)
@click.option("--seed", default=1, show_default=True, help="of the assignment of groups to folds")
def crossval(recipe: str, folds: int, seed: int) -> None:
    """Train and test RECIPE of params.yaml in grouped folds of its whole dataset."""
    from deepsky.commands import crossval as command

    command.run(recipe, folds, seed)


@cli.command("lr-range")
@click.argument("recipe")
@click.option("--steps", default=100, show_default=True)
def lr_range(recipe: str, steps: int) -> None:
    """Raise RECIPE's learning rate step by step, plot the loss and suggest a rate."""
    from deepsky.commands import lr_range as command

    command.run(recipe, steps)
