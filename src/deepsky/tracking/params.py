"""Section ``tracking`` of params.yaml."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class TrackingParams:
    """Section ``tracking``.

    Attributes:
        experiment: name of the MLflow experiment that gets the runs.
    """

    experiment: str = "deepsky"

    def __post_init__(self) -> None:
        """Refuse a name that MLflow could not show."""
        if not self.experiment.strip() or not self.experiment.isprintable():
            raise ValueError(f"experiment {self.experiment!r} is no name")
