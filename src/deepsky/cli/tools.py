"""What a person runs beside the stages."""

from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from deepsky.archives.addresses import FOLDERS, QUERY_RELEASES, QueryRelease
from deepsky.cli.group import PATH, cli
from deepsky.cli.reading import reading_options
from deepsky.papers.paper import PAPERS


@cli.command(epilog="Example: deepsky repro --jobs 2 --only my_galaxies")
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


@cli.command(epilog="Example: deepsky worker tcp://127.0.0.1:8786")
@click.argument("address")
@click.option("--threads", default=1, show_default=True, help="for what a stage shares out among all workers")
def worker(address: str, threads: int) -> None:
    """Run stages for deepsky repro --scheduler ADDRESS, in this project's folder, until that goes away or Ctrl-C."""
    from deepsky.cli import main
    from deepsky.pipeline import worker as process

    process.serve(address, main, threads)


@cli.command(epilog="Example: deepsky query --objects-per-class 5000")
@click.option("--sql", type=PATH, help="file with one SELECT statement")
@click.option("--objects-per-class", type=int, help="ask for so many galaxies, quasars and stars")
@click.option("--release", type=click.Choice(QUERY_RELEASES), help="of SDSS (default: what params.yaml says)")
def query(sql: Path | None, objects_per_class: int | None, release: QueryRelease | None) -> None:
    """Ask SDSS which objects to work on: writes data/query/catalogue.csv, for survey: sdss."""
    from deepsky.commands import query as command
    from deepsky.experiment.experiment import read_experiment

    experiment = read_experiment()
    command.run(sql, objects_per_class, release or experiment.archive.of_query, experiment.download)


@cli.command(epilog="Example: deepsky urls --kind sdss_jpg | wget -i -")
@click.option("--kind", "kinds", type=click.Choice(FOLDERS), multiple=True, help="only these (default: all)")
@click.option("--ask", is_flag=True, help="ask Pan-STARRS which stacks cover places that it has not told of yet")
def urls(kinds: tuple[str, ...], ask: bool) -> None:
    """Print the URLs that stage fetch downloads for data/catalogue.csv, one a line, without any network."""
    from deepsky.commands import urls as command

    command.run(kinds, ask=ask)


@cli.command(epilog="Example: deepsky doctor")
def doctor() -> None:
    """Look at python, packages, devices, weights, stores and disk, and say what is wrong and how to mend it."""
    from deepsky.commands import doctor as command

    command.run()


@cli.command(epilog="Example: deepsky paper fractions --n 400")
@click.argument("study", type=click.Choice(PAPERS))
@click.option("--n", metavar="N", type=click.IntRange(min=1), help="objects, with the same share of each class")
def paper(study: str, n: int | None) -> None:
    """Make params.yaml the experiment of STUDY, whose printed figures the report sets beside yours."""
    from deepsky.commands import paper as command

    command.run(study, n)


@cli.command(epilog="Example: deepsky networks")
def networks() -> None:
    """List every network: its parameters, and where its pretrained weights are."""
    from deepsky.commands import networks as command

    command.run()


@cli.command("download-weights", epilog="Example: deepsky download-weights mobilenet")
@click.argument("networks", nargs=-1)
def download_weights(networks: tuple[str, ...]) -> None:
    """Download the pretrained weights of NETWORKS, or of all that params.yaml uses, into Keras' cache."""
    from deepsky.commands import download_weights as command

    command.run(networks)


@cli.command(epilog="Example: deepsky drop demo")
@click.argument("names", nargs=-1, required=True)
def drop(names: tuple[str, ...]) -> None:
    """Take datasets, runs or networks of these NAMES out of params.yaml, with all that refers to them.

    The name demo takes out the datasets that deepsky comes with, and leaves yours.
    """
    from deepsky.commands import drop as command

    command.run(names)


@cli.command("export-folders", epilog="Example: deepsky export-folders sdss_jpg ~/sdss_jpg")
@click.argument("dataset")
@click.argument("folder", type=PATH)
def export_folders(dataset: str, folder: Path) -> None:
    """Write FOLDER/{train,val,test}/CLASS/ID.png of DATASET, for other software.

    Of the flux of several bands the pictures are those that the report shows.
    """
    from deepsky.commands import export_folders as command

    command.run(dataset, folder)


@cli.command(epilog="Example: deepsky predict my_galaxies-efficientnet_lite0 ~/tonight --csv answers.csv")
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
@click.pass_context
def predict(
    context: click.Context,
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
    """Label images, or the catalogued objects of FITS frames, with the trained network MODEL.

    MODEL is a run, its model.h5, or models:/DATASET@champion; INPUTS are files, folders, patterns in quotes, or @FILE.
    After a kill the same command with --csv goes on.
    """
    from deepsky.commands import predict as command

    if not inputs and listed is None:
        raise click.UsageError("give INPUTS, or a --list of them")
    said = [
        name for name in ("id_column", *reading) if context.get_parameter_source(name) is ParameterSource.COMMANDLINE
    ]
    if catalogue is None and said:
        raise click.UsageError(f"--{said[0].replace('_', '-').removesuffix('s')} is for the objects of a --catalogue")
    objects = None if catalogue is None else command.Catalogue(catalogue, id_column, reading)
    command.run(model, inputs, out, catalogue=objects, listed=listed, on_bad_file=on_bad_file, scheduler=scheduler)


@cli.command(epilog="Example: deepsky export my_galaxies-efficientnet_lite0 --format onnx")
@click.argument("model", metavar="RUN")
@click.option("--format", "kind", type=click.Choice(["keras", "onnx", "litert"]), required=True)
@click.option("--out", type=PATH, help="the file (default: DATASET-NETWORK.SUFFIX in this folder)")
def export(model: str, kind: Any, out: Path | None) -> None:
    """Write the trained network of RUN (or a model.h5) for other programs, run what was written and compare."""
    from deepsky.commands import export as command

    command.run(model, kind, out)


@cli.command(epilog="Example: deepsky ui --port 5001")
@click.option("--port", default=5000, show_default=True)
def ui(port: int) -> None:
    """MLflow UI on 127.0.0.1 with every run to compare."""
    from deepsky.commands import ui as command
    from deepsky.experiment.experiment import read_experiment

    command.run(read_experiment().tracking.experiment, port)


@cli.command(epilog="Example: deepsky promote my_galaxies-efficientnet_lite0 --alias champion")
@click.argument("run")
@click.option("--alias", default="champion", show_default=True, help="what the version is called from now on")
def promote(run: str, alias: str) -> None:
    """Register the network of RUN (a name, a path or MLflow's id) as its dataset's champion, with a model card."""
    from deepsky.commands import promote as command

    command.run(run, alias)


@cli.command(epilog="Example: deepsky serve my_galaxies@champion --port 5002")
@click.argument("model", metavar="[NAME[@ALIAS]]", required=False)
@click.option("--host", default="127.0.0.1", show_default=True, help="address to listen on")
@click.option("--port", default=5002, show_default=True, type=click.IntRange(1, 65535))
def serve(model: str | None, host: str, port: int) -> None:
    """Answer over HTTP with the only registered network, or NAME: pictures to /predict, JSON to /invocations."""
    from deepsky.commands import serve as command

    command.run(model, host, port)


@cli.group()
def tune() -> None:
    """Search hyperparameters of a run: its head on cached features, or how its network learns from the images."""


_storage_option = click.option("--storage", help="URL of the studies' database (default: tune.storage)")


@tune.command("run", epilog="Example: deepsky tune run --run zoo_frozen --trials 200")
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


@tune.command("adopt", epilog="Example: deepsky tune adopt zoo_frozen")
@click.argument("study")
@click.option("--trial", type=int, help="number of a complete trial (default: the best one)")
@_storage_option
def tune_adopt(study: str, trial: int | None, storage: str | None) -> None:
    """Write the best trial of STUDY into params.yaml as a run; the next dvc repro trains it."""
    from deepsky.commands import adopt as command

    command.run(study, trial, storage)


@tune.command("list", epilog="Example: deepsky tune list")
@_storage_option
def tune_list(storage: str | None) -> None:
    """Print the studies, their trials and best values."""
    from deepsky.commands import tune as command

    command.list_studies(storage)


@tune.command("dashboard", epilog="Example: deepsky tune dashboard --port 8081")
@_storage_option
@click.option("--port", default=8080, show_default=True)
def tune_dashboard(storage: str | None, port: int) -> None:
    """optuna-dashboard on 127.0.0.1."""
    from deepsky.commands import tune as command

    command.dashboard(storage, port)


@cli.command(epilog="Example: deepsky show zoo_frozen")
@click.argument("run")
def show(run: str) -> None:
    """Print what RUN learns with, and where in params.yaml each number comes from."""
    from deepsky.commands import show as command

    command.run(run)


@cli.command(epilog="Example: deepsky errors zoo_frozen --limit 20")
@click.argument("run")
@click.option("--limit", default=40, show_default=True, help="objects at most")
def errors(run: str, limit: int) -> None:
    """List and picture what RUN (or the network at this path) got wrong, the surest first."""
    from deepsky.commands import errors as command

    command.run(run, limit)


@cli.command(epilog="Example: deepsky small")
def small() -> None:
    """Make params.yaml a miniature of itself, to try things in minutes."""
    from deepsky.commands import small as command

    command.run()


@cli.command(epilog="Example: deepsky crossval zoo1_fine_tune --folds 5")
@click.argument("run")
@click.option("--folds", default=5, show_default=True)
@click.option("--seed", default=1, show_default=True, help="of the assignment of groups to folds")
def crossval(run: str, folds: int, seed: int) -> None:
    """Train and test RUN of params.yaml in grouped folds of its whole dataset."""
    from deepsky.commands import crossval as command

    command.run(run, folds, seed)


@cli.command("learning-curve", epilog="Example: deepsky learning-curve zoo1_fine_tune --n 100,200,400")
@click.argument("run")
@click.option(
    "--n", "numbers", metavar="N,...", help="train objects (default: an eighth, a quarter, half, all of them)"
)
@click.option("--seed", default=1, show_default=True, help="of the order in which groups are taken")
def learning_curve(run: str, numbers: str | None, seed: int) -> None:
    """Train RUN on nested samples of its train objects, test each on its test objects, draw the curve."""
    from deepsky.commands import learning_curve as command

    try:
        wanted = [int(one) for one in numbers.split(",")] if numbers else []
    except ValueError as error:
        raise click.BadParameter(f"{numbers!r} is not like 100,200,400", param_hint="--n") from error
    command.run(run, wanted, seed)


@cli.command("lr-range", epilog="Example: deepsky lr-range zoo1_fine_tune")
@click.argument("run")
@click.option("--steps", default=100, show_default=True)
def lr_range(run: str, steps: int) -> None:
    """Raise RUN's learning rate step by step, plot the loss and suggest a rate."""
    from deepsky.commands import lr_range as command

    command.run(run, steps)
