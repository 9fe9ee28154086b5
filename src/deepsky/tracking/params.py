"""Section ``tracking`` of params.yaml."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class TrackingParams:
    """Section ``tracking``.

    Attributes:
        experiment: name of the MLflow experiment that gets the runs.
    """

    experiment: str = "deepsky"
