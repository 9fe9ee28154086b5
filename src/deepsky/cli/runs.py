"""What a person asks of runs that were made."""

import click

from deepsky.cli.group import cli


@cli.command(epilog="Example: deepsky lineage zoo_frozen --object 1237648720142401611")
@click.argument("run")
@click.option("--object", "object_id", metavar="ID", help="follow this object through every stage, in pictures")
@click.option("--json", "as_json", is_flag=True, help="all of it, for programs: every raw file with its objects")
def lineage(run: str, object_id: str | None, as_json: bool) -> None:
    """Tell what RUN (id, name or path of a network) came from: code, settings, data, raw files with their URLs."""
    from deepsky.commands import lineage as command

    command.run(run, object_id, as_json=as_json)


@cli.command(epilog="Example: deepsky reproduce zoo_frozen --seeds 3")
@click.argument("run")
@click.option(
    "--seeds",
    "n_seeds",
    default=0,
    type=click.IntRange(min=0),
    metavar="N",
    help="train with N other seeds too: what chance does",
)
@click.option("--keep", is_flag=True, help="leave the temporary folder there")
def reproduce(run: str, n_seeds: int, keep: bool) -> None:
    """Train RUN again from its own commit, settings and data, in a folder of its own, and say if the same comes out."""
    from deepsky.commands import reproduce as command

    command.run(run, n_seeds, keep=keep)


@cli.command(epilog="Example: deepsky diff zoo_frozen sdss_jpg-mobilenet")
@click.argument("runs", nargs=-1, required=True)
@click.option("--json", "as_json", is_flag=True, help="for programs")
def diff(runs: tuple[str, ...], as_json: bool) -> None:
    """Tell in what RUNS differ: settings, data, code, machine and versions; and what that did to every metric."""
    from deepsky.commands import diff as command

    command.run(runs, as_json=as_json)


@cli.command(epilog="Example: deepsky runs --check")
@click.option("--check", is_flag=True, help="networks without a run, runs whose files changed, runs of dead processes")
@click.option("--sync", is_flag=True, help="deliver what waits on disk, and enter the runs that came by dvc pull")
def runs(check: bool, sync: bool) -> None:
    """List the runs of the MLflow store; or look whether they and the trained networks belong together, and mend it."""
    from deepsky.commands import runs as command

    if sync:
        command.sync()
    if check:
        command.check()
    if not (sync or check):
        command.list_runs()
