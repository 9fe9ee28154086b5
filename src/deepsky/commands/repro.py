"""dvc repro with independent stages side by side; DVC itself runs one stage at a time."""

import subprocess
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from graphlib import TopologicalSorter

import click

from deepsky.config import PARAMS, build, read_entries, read_recipes, read_section, read_yaml
from deepsky.errors import ConfigError, DeepSkyError
from deepsky.tuning.adopt import read_adopted

# What DVC and TensorFlow say every time.
_CHATTER = (
    "Running stage",
    "> ",
    "Updating lock",
    "Generating lock",
    "To track",
    "\tgit add",
    "To enable",
    "\tdvc config",
    "Use `dvc push`",
    "WARNING: All log messages before absl",
    "I0000 ",
    "E0000 ",
)
MAX_JOBS = 4  # above this, DVC's own locks were seen to fail


@dataclass(frozen=True)
class StageResult:
    """How one `dvc repro --single-item` ended."""

    stage: str
    returncode: int
    output: str


def run(jobs: int, targets: Sequence[str] = ()) -> None:
    """Bring every stage, or the targets and what they need, up to date.

    Stages that are up to date, and whose inputs are, start no process. The last word is `dvc repro`'s own,
    so the outcome is the same as with one job.

    Args:
        jobs: stages that may run at a time, 1 to MAX_JOBS.
        targets: DVC addresses of stages; none means all.

    Raises:
        ConfigError: jobs out of range.
        DeepSkyError: a stage failed; the stages beside it were let finish, none was started after.
    """
    if not 1 <= jobs <= MAX_JOBS:
        raise ConfigError(f"--jobs {jobs}", "is out of range", f"give 1 to {MAX_JOBS}")
    sections = read_yaml()  # our own line about params.yaml comes before DVC's
    if "tuned" in sections:
        list(read_adopted())
    if "recipes" in sections and not targets:
        _check_recipes()
    if jobs > 1:
        _run_side_by_side(_stale_graph(targets), jobs)
    if subprocess.run(["dvc", "repro", *targets]).returncode:
        raise DeepSkyError("dvc repro", "a stage failed", "its own line above says why")
    from deepsky.tracking.runs import close_dead_runs  # slow to import
    from deepsky.tracking.store import TrackingParams

    # A killed training whose outputs then came from DVC's cache has no successor to close its run.
    close_dead_runs(read_section("tracking", TrackingParams).experiment)


def _check_recipes() -> None:
    """Refuse recipes of datasets or weights that no stage makes: DVC would only miss a file."""
    datasets = [*read_entries("datasets"), *read_entries("collections")]
    ready = build(read_yaml("weights.networks"), tuple[str, ...], f"{PARAMS}: weights.networks")
    remedy = f"correct the name, or add it to weights.networks, which has {', '.join(ready) or 'none'}"
    for way, entries in read_recipes().items():
        for key, recipe in entries.items():
            where = f"{PARAMS}: recipes.{way}.{key}"
            dataset, network = (
                recipe.get(name) if isinstance(recipe, dict) else None for name in ("dataset", "network")
            )
            if dataset not in datasets:
                known = ", ".join(map(str, datasets))
                raise ConfigError(where, f"dataset {dataset!r} is unknown", f"choose one of: {known}")
            if way != "from_scratch" and network not in ready:
                raise ConfigError(where, f"the weights of network {network!r} are not made ready", remedy)
    for network in read_entries("backbones"):
        if network not in ready:
            raise ConfigError(f"{PARAMS}: backbones", f"the weights of {network!r} are not made ready", remedy)


def _stale_graph(targets: Sequence[str]) -> dict[str, set[str]]:
    """Map each stage that may have to run to the stages that it must wait for, both by DVC address."""
    from dvc.exceptions import DvcException  # slow to import
    from dvc.repo import Repo
    from networkx import ancestors, descendants

    try:
        with Repo() as repo:
            graph = repo.index.graph  # an edge leads from a stage to one that it reads
            if targets:
                wanted = {
                    stage for stage in graph if {stage.addressing, stage.addressing.partition("@")[0]} & set(targets)
                }
                graph = graph.subgraph(wanted.union(*(descendants(graph, stage) for stage in wanted)))
            changed = set(repo.status())
            upward = {stage for stage in graph if stage.addressing in changed}
            stale = {stage for stage in upward.union(*(ancestors(graph, stage) for stage in upward)) if stage.cmd}
            return {s.addressing: {d.addressing for d in graph.successors(s) if d in stale} for s in stale}
    except DvcException as error:
        remedy = "mend that in dvc.yaml or params.yaml, or wait for the other dvc to end"
        raise DeepSkyError("dvc", f"cannot read the pipeline ({error})", remedy) from error


def _run_side_by_side(graph: dict[str, set[str]], jobs: int) -> None:
    sorter = TopologicalSorter(graph)
    sorter.prepare()
    done, running = 0, set[Future[StageResult]]()
    failed: StageResult | None = None
    with ThreadPoolExecutor(jobs) as pool:
        while running or (sorter.is_active() and not failed):
            if not failed:
                running |= {pool.submit(_run_stage, stage) for stage in sorter.get_ready()}
            finished, running = wait(running, return_when=FIRST_COMPLETED)
            for result in (future.result() for future in finished):
                done += 1
                click.echo(f"[{done}/{len(graph)}] {result.stage}{result.output}")
                sorter.done(result.stage)
                if result.returncode and not failed:
                    failed = result
                    for future in running:
                        future.cancel()
                    running = {future for future in running if not future.cancelled()}
    if failed:
        raise DeepSkyError(f"stage {failed.stage}", "failed", "its own line above says why")


def _run_stage(stage: str) -> StageResult:
    command = ["dvc", "repro", "--single-item", stage]
    process = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    lines = [line for line in process.stdout.splitlines() if line.strip() and not line.startswith(_CHATTER)]
    return StageResult(stage, process.returncode, "".join(f"\n    {line}" for line in lines))
