"""Stage plan: what each stage runs with, and by which code."""

from pathlib import Path

from deepsky.experiment.experiment import read_experiment
from deepsky.experiment.plan import write_plan


def run(*, params: Path, out: Path) -> None:
    """Write the plan.

    Args:
        params: params.yaml.
        out: the plan to write.

    Raises:
        ConfigError: whatever is wrong in params.yaml, a line each.
    """
    stages = write_plan(read_experiment(params), out)
    print(f"{len(stages['train'])} runs on {len(stages['split'])} datasets")
