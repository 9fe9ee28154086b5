"""The runs of the plan, as evaluate knows them, and those of them that MLflow does not know yet."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from deepsky.commands.models import TRAINED
from deepsky.evaluation.planned import PlannedRun
from deepsky.experiment.plan import PLAN, Plan, read_plan
from deepsky.training.recipe import Recipe

_OF_PROJECT = ("code", "deterministic")  # in the plan of a training, but no settings of the run
EVALUATED = Path("evaluation/runs")


def planned_runs(plan: Plan) -> list[PlannedRun]:
    """Return every run of the plan."""
    return [_planned(plan, name, one) for name, one in plan.settings("evaluate")["runs"].items()]


def _planned(plan: Plan, name: str, one: Mapping[str, Any]) -> PlannedRun:
    recipe = plan.params(Recipe, "train", name)
    has_baselines = recipe.of_head and recipe.answer == "softmax"
    return PlannedRun(
        name=name,
        dataset=one["dataset"],
        label=one["label"],
        is_cell=one["is_cell"],
        is_simulated=one["is_simulated"],
        reference=one["reference"],
        settings={key: value for key, value in plan.settings("train", name).items() if key not in _OF_PROJECT},
        features=f"{recipe.dataset}/{recipe.network}/{recipe.views.name}" if has_baselines else None,
    )


def log_pulled_runs() -> None:
    """Give MLflow the runs that came by ``dvc pull``: DVC runs no stage for them, so nothing else would.

    Raises:
        TrackingError: the store cannot be used.
    """
    from deepsky.stages.evaluate import log_evaluated  # slow to import

    if PLAN.exists() and (EVALUATED / "summary.json").exists():
        plan = read_plan()
        settings = plan.settings("evaluate")
        log_evaluated(planned_runs(plan), settings["experiment"], trained=TRAINED, out=EVALUATED, code=settings["code"])
