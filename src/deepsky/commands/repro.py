"""dvc repro with independent stages side by side; DVC itself runs one stage at a time."""

import sys
from collections.abc import Sequence

from deepsky.config import PARAMS, build, read_entries, read_recipes, read_section, read_yaml
from deepsky.errors import ConfigError, DeepSkyError
from deepsky.pipeline.children import Children
from deepsky.pipeline.holder import held_project
from deepsky.pipeline.runner import bring_up_to_date
from deepsky.tuning.adopt import read_adopted

MAX_JOBS = 64


def run(jobs: int, targets: Sequence[str] = ()) -> None:
    """Bring every stage, or the targets and what they need, up to date.

    Stages that are up to date, and whose inputs are, start no process. The last word is `dvc repro`'s own,
    so the outcome is the same as with one job.

    Args:
        jobs: stages that may run at a time, 1 to MAX_JOBS.
        targets: DVC addresses of stages; none means all.

    Raises:
        ConfigError: jobs out of range.
        DeepSkyError: a stage failed; those that do not wait for it were finished. Or another `deepsky repro`
            is at work in this project.
        KeyboardInterrupt: Ctrl-C came; what ran has ended.
        SystemExit: SIGTERM or a hangup came; what ran has ended.
    """
    if not 1 <= jobs <= MAX_JOBS:
        raise ConfigError(f"--jobs {jobs}", "is out of range", f"give 1 to {MAX_JOBS}")
    sections = read_yaml()  # our own line about params.yaml comes before DVC's
    if "tuned" in sections:
        list(read_adopted())
    if "recipes" in sections and not targets:
        _check_recipes()
    with held_project():
        if jobs > 1:
            bring_up_to_date(jobs, targets=targets)
        _dvc_repro(targets)
    from deepsky.tracking.runs import close_dead_runs  # slow to import
    from deepsky.tracking.store import TrackingParams

    # A killed training whose outputs then came from DVC's cache has no successor to close its run.
    close_dead_runs(read_section("tracking", TrackingParams).experiment)


def _dvc_repro(targets: Sequence[str]) -> None:
    sys.stdout.flush()  # what was printed stands above what DVC prints
    with Children() as children:
        children.start("dvc", ["dvc", "--wait-for-lock", "repro", *targets], keep_output=False)
        if children.next_ended().returncode:
            raise DeepSkyError("dvc repro", "a stage failed", "its own line above says why")


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
