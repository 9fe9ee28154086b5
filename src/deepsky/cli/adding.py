"""deepsky add: bring data into the project."""

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any, get_args

import click

from deepsky.cli.group import PATH, cli
from deepsky.cli.reading import reading_options, split
from deepsky.datasets.params import GroupBy
from deepsky.formats.registry import FORMATS, OWN
from deepsky.imaging.params import GENTLE, Denoise


@cli.group()
def add() -> None:
    """Register your own data: copied, versioned by DVC, entered in params.yaml."""


_only_option = click.option("--only", is_flag=True, help="leave nothing of deepsky's demonstration in params.yaml")


_gentle = ", ".join(f"{method} {strength:g}" for method, strength in GENTLE.items() if strength)


def _preparation_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options that say how pictures are prepared, and which are taken."""
    options = (
        click.option("--size-px", default=224, show_default=True, help="side of the square pictures to learn from"),
        click.option("--crop-px", type=int, help="keep the middle square of this side first"),
        click.option("--denoise", type=click.Choice(get_args(Denoise)), default="none", show_default=True),
        click.option("--denoise-strength", type=float, help=f"default: {_gentle}"),
        click.option("--gray", is_flag=True, help="one channel instead of three"),
        click.option("--limit", type=int, metavar="N", help="take N only, with the same share of each class"),
        click.option(
            "--group-by",
            metavar="|".join(get_args(GroupBy)),
            help="what stays together in a split (default: what suits the pictures)",
        ),
        _only_option,
    )

    @wraps(command)
    def with_strength(denoise: Denoise, denoise_strength: float | None, **others: Any) -> None:
        strength = GENTLE[denoise] if denoise_strength is None else denoise_strength
        command(denoise=denoise, denoise_strength=strength, **others)

    for option in reversed(options):
        with_strength = option(with_strength)
    return with_strength


@add.command("images", epilog="Example: deepsky add images my_galaxies ~/galaxies")
@click.argument("name")
@click.argument("folder", type=PATH)
@click.argument("labels", type=PATH, required=False)
@click.option("--id-column", default="id", show_default=True, help="column of LABELS that names each picture's file")
@click.option("--label-column", default="class", show_default=True, help="column of LABELS with the class")
@click.option(
    "--class-column", "class_columns", metavar="CLASS=COLUMN", multiple=True,
    help="of a table of votes or flags (Galaxy Zoo's data releases): the column of each class to learn",
)  # fmt: skip
@click.option(
    "--least-vote", default=0.8, show_default=True, help="what a galaxy of a class has in its column at least"
)
@click.option("--classes", default="", metavar="A,B", help="keep these classes only (default: all)")
@click.option("--group-column", help="column of LABELS that says which pictures belong together")
@click.option("--mirrored", metavar="A,B", multiple=True, help="classes that a mirror image turns into each other")
@_preparation_options
def add_images(name: str, folder: Path, labels: Path | None, **options: Any) -> None:
    """Register the pictures of FOLDER (or a zip) as dataset NAME: one sub-folder per class, or a table LABELS.

    Folders train, val and test above the classes are taken as the split. The table may be CSV, FITS, VOTable, ECSV or
    Parquet. Every picture is looked at once.
    """
    from deepsky.commands import add_images as command

    how = command.Labels(
        labels,
        options.pop("id_column"),
        options.pop("label_column"),
        dict(_pair_of(one) for one in options.pop("class_columns")),
        _listed(options.pop("classes")),
    )
    command.run(name, folder, how, mirrored=[_listed(pair) for pair in options.pop("mirrored")], **options)


def _listed(text: str) -> list[str]:
    return [one.strip() for one in text.split(",") if one.strip()]


def _pair_of(text: str) -> tuple[str, str]:
    name, _, column = text.partition("=")
    if not name or not column:
        raise click.BadParameter(f"{text!r} is not CLASS=COLUMN", param_hint="--class-column")
    return name, column


@add.command("frames", epilog="Example: deepsky add frames my_field ~/frames ~/catalogue.csv")
@click.argument("name")
@click.argument("folder", type=PATH)
@click.argument("catalogue", type=PATH)
@click.option("--id-column", help="column of CATALOGUE that names each object; rows are numbered without it")
@click.option("--label-column", default="class", show_default=True, help="column of CATALOGUE with the class")
@reading_options
@click.option("--bands", default="u,g,r,i,z", show_default=True, callback=split, help="bands to cut out")
@click.option("--colours", default="i,r,g", show_default=True, callback=split, help="shown as red, green and blue")
@click.option("--cutout-size-px", default=64, show_default=True)
@_only_option
def add_frames(name: str, folder: Path, catalogue: Path, only: bool, **options: Any) -> None:
    """Register the FITS frames of FOLDER and the objects of CATALOGUE as dataset NAME_cutouts.

    CATALOGUE is a table with the class and position of each object: CSV, FITS, VOTable, ECSV or Parquet.
    """
    from deepsky.commands import add_frames as command

    command.run(name, folder, catalogue, options, only=only)


_published = {name: facts.label for name, facts in FORMATS.items() if name not in OWN}


@add.command("collection", epilog=f"FORMAT: {'; '.join(f'{name} ({label})' for name, label in _published.items())}")
@click.argument("name")
@click.argument("kind", metavar="FORMAT")
@click.argument("source", type=PATH, required=False)
@click.option("--target", type=click.Choice(["class", "fractions"]), default="class", show_default=True)
@click.option("--sha256", help="of the file, where it is not the published one; any: do not check")
@_preparation_options
def add_collection(name: str, kind: str, source: Path | None, **options: Any) -> None:
    """Register a published dataset in its own FORMAT as NAME; without SOURCE it is downloaded.

    Every picture is looked at once.
    """
    from deepsky.commands import add_published as command

    command.run(name, kind, source, **options)
