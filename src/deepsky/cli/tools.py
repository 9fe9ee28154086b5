"""What a person runs beside the stages."""

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any, get_args

import click

from deepsky.archives.addresses import FOLDERS, QUERY_RELEASES, QueryRelease
from deepsky.cli.group import PATH, cli
from deepsky.cli.reading import reading_options, split
from deepsky.datasets.params import GroupBy
from deepsky.formats.registry import FORMATS, OWN
from deepsky.imaging.params import GENTLE, Denoise
from deepsky.papers.paper import PAPERS


@cli.command()
@click.option("--jobs", default=1, show_default=True, help="stages side by side")
@click.option("--only", is_flag=True, help="TARGETS are datasets or runs: just these, then evaluate and report")
@click.option("--scheduler", metavar="ADDRESS", help="Dask scheduler whose workers run the stages (deepsky worker)")
@click.option("--dry", is_flag=True, help="list what would run, and why")
@click.argument("targets", nargs=-1)
def repro(jobs: int, only: bool, scheduler: str | None, dry: bool, targets: tuple[str, ...]) -> None:
    """Bring every stage (or TARGETS) up to date: dvc repro, with independent stages side by side."""
    from deepsky.commands import repro as command

    if only and not targets:
        raise click.UsageError("--only wants the names of datasets or runs")
    if dry:
        command.list_stale(targets=() if only else targets, only=targets if only else ())
    else:
        command.run(jobs, targets=() if only else targets, only=targets if only else (), scheduler=scheduler)


@cli.command()
@click.argument("address")
@click.option("--threads", default=1, show_default=True, help="for what a stage shares out among all workers")
def worker(address: str, threads: int) -> None:
    """Run stages for deepsky repro --scheduler ADDRESS, in this project's folder, until that goes away or Ctrl-C."""
    from deepsky.cli import main
    from deepsky.pipeline import worker as process

    process.serve(address, main, threads)


@cli.command()
@click.option("--sql", type=PATH, help="file with one SELECT statement")
@click.option("--objects-per-class", type=int, help="ask for so many galaxies, quasars and stars")
@click.option("--release", type=click.Choice(QUERY_RELEASES), help="of SDSS (default: what params.yaml says)")
def query(sql: Path | None, objects_per_class: int | None, release: QueryRelease | None) -> None:
    """Ask SDSS which objects to work on: writes data/query/catalogue.csv, for survey: sdss."""
    from deepsky.commands import query as command
    from deepsky.experiment.experiment import read_experiment

    experiment = read_experiment()
    command.run(sql, objects_per_class, release or experiment.archive.of_query, experiment.download)


@cli.command()
@click.option("--kind", "kinds", type=click.Choice(FOLDERS), multiple=True, help="only these (default: all)")
@click.option("--ask", is_flag=True, help="ask Pan-STARRS which stacks cover places that it has not told of yet")
def urls(kinds: tuple[str, ...], ask: bool) -> None:
    """Print the URLs that stage fetch downloads for data/catalogue.csv, one a line, without any network."""
    from deepsky.commands import urls as command

    command.run(kinds, ask=ask)


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


@add.command("images")
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


@add.command("frames")
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


@cli.command()
def doctor() -> None:
    """Look at python, packages, devices, weights, stores and disk, and say what is wrong and how to mend it."""
    from deepsky.commands import doctor as command

    command.run()


@cli.command()
@click.argument("study", type=click.Choice(PAPERS))
@click.option("--n", metavar="N", type=int, help="objects, with the same share of each class")
def paper(study: str, n: int | None) -> None:
    """Make params.yaml the experiment of STUDY, whose printed figures the report sets beside yours."""
    from deepsky.commands import paper as command

    command.run(study, n)


@cli.command()
def networks() -> None:
    """List every network: its parameters, and where its pretrained weights are."""
    from deepsky.commands import networks as command

    command.run()


@cli.command("download-weights")
@click.argument("networks", nargs=-1)
def download_weights(networks: tuple[str, ...]) -> None:
    """Download the pretrained weights of NETWORKS, or of all that params.yaml uses, into Keras' cache."""
    from deepsky.commands import download_weights as command

    command.run(networks)


@cli.command()
@click.argument("names", nargs=-1, required=True)
def drop(names: tuple[str, ...]) -> None:
    """Take datasets, runs or networks of these NAMES out of params.yaml, with all that refers to them.

    The name demo takes out the datasets that deepsky comes with, and leaves yours.
    """
    from deepsky.commands import drop as command

    command.run(names)


@cli.command("export-folders")
@click.argument("dataset")
@click.argument("folder", type=PATH)
def export_folders(dataset: str, folder: Path) -> None:
    """Write FOLDER/{train,val,test}/CLASS/ID.png of DATASET, for other software.

    Of the flux of several bands the pictures are those that the report shows.
    """
    from deepsky.commands import export_folders as command

    command.run(dataset, folder)


@cli.command()
@click.argument("model")
@click.argument("inputs", nargs=-1, metavar="INPUTS...")
@click.option("--list", "listed", type=PATH, help="text file that names an input a line; also @FILE among the INPUTS")
@click.option("--catalogue", type=PATH, help="table of objects to cut out of the FITS frames INPUTS")
@click.option("--id-column", help="column of the catalogue that names each object; rows are numbered without it")
@reading_options
@click.option("--csv", "out", type=PATH, help="append to this CSV instead of printing; what it answers is left out")
@click.option(
    "--on-bad-file",
    type=click.Choice(["stop", "skip"]),
    default="stop",
    show_default=True,
    help="skip names each on stderr",
)
@click.option("--scheduler", metavar="ADDRESS", help="Dask scheduler whose workers do the work (deepsky worker)")
def predict(
    model: str,
    inputs: tuple[str, ...],
    out: Path | None,
    catalogue: Path | None,
    id_column: str | None,
    listed: Path | None,
    on_bad_file: Any,
    scheduler: str | None,
    **reading: Any,
) -> None:
    """Label images, or the catalogued objects of FITS frames, with the trained network MODEL: a run, or its model.h5.

    INPUTS are files, folders, patterns in quotes, or @FILE. After a kill the same command with --csv goes on.
    """
    from deepsky.commands import predict as command

    if not inputs and listed is None:
        raise click.UsageError("give INPUTS, or a --list of them")
    named = {"catalogue": catalogue, "id_column": id_column, "listed": listed, "on_bad_file": on_bad_file}
    command.run(model, inputs, out, reading=reading, scheduler=scheduler, **named)


@cli.command()
@click.argument("model", metavar="RUN")
@click.option("--format", "kind", type=click.Choice(["keras", "onnx", "litert"]), required=True)
@click.option("--out", type=PATH, help="the file (default: DATASET-NETWORK.SUFFIX in this folder)")
def export(model: str, kind: Any, out: Path | None) -> None:
    """Write the trained network of RUN (or a model.h5) for other programs, run what was written and compare."""
    from deepsky.commands import export as command

    command.run(model, kind, out)


@cli.command()
@click.option("--port", default=5000, show_default=True)
def ui(port: int) -> None:
    """MLflow UI on 127.0.0.1 with every run to compare."""
    from deepsky.commands import ui as command
    from deepsky.experiment.experiment import read_experiment

    command.run(read_experiment().tracking.experiment, port)


@cli.group()
def tune() -> None:
    """Search hyperparameters of a run: its head on cached features, or how its network learns from the images."""


_storage_option = click.option("--storage", help="URL of the studies' database (default: tune.storage)")


@tune.command("run")
@click.argument("dataset", required=False)
@click.argument("network", required=False)
@click.option("--run", "name", help="a run of params.yaml (default: tune.run)")
@click.option("--trials", type=int, help="in total, over all workers and restarts (default: tune.trials)")
@click.option("--study", help="its name (default: the run's)")
@_storage_option
@click.option("--workers", default=1, show_default=True, help="processes on this machine")
def tune_run(dataset: str | None, network: str | None, **options: Any) -> None:
    """Search a run, or the run DATASET-NETWORK; a study begun before goes on."""
    from deepsky.commands import tune as command

    command.run(dataset, network, **options)


@tune.command("adopt")
@click.argument("study")
@click.option("--trial", type=int, help="number of a complete trial (default: the best one)")
@_storage_option
def tune_adopt(study: str, trial: int | None, storage: str | None) -> None:
    """Write the best trial of STUDY into params.yaml as a run; the next dvc repro trains it."""
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


@cli.command()
@click.argument("run")
def show(run: str) -> None:
    """Print what RUN learns with, and where in params.yaml each number comes from."""
    from deepsky.commands import show as command

    command.run(run)


@cli.command()
@click.argument("run")
@click.option("--limit", default=40, show_default=True, help="objects at most")
def errors(run: str, limit: int) -> None:
    """List and picture what RUN (or the network at this path) got wrong, the surest first."""
    from deepsky.commands import errors as command

    command.run(run, limit)


@cli.command()
def small() -> None:
    """Make params.yaml a miniature of itself, to try things in minutes."""
    from deepsky.commands import small as command

    command.run()


@cli.command()
@click.argument("run")
@click.option("--folds", default=5, show_default=True)
@click.option("--seed", default=1, show_default=True, help="of the assignment of groups to folds")
def crossval(run: str, folds: int, seed: int) -> None:
    """Train and test RUN of params.yaml in grouped folds of its whole dataset."""
    from deepsky.commands import crossval as command

    command.run(run, folds, seed)


@cli.command("lr-range")
@click.argument("run")
@click.option("--steps", default=100, show_default=True)
def lr_range(run: str, steps: int) -> None:
    """Raise RUN's learning rate step by step, plot the loss and suggest a rate."""
    from deepsky.commands import lr_range as command

    command.run(run, steps)
