"""Section ``tracking`` of params.yaml."""

from dataclasses import dataclass, replace


@dataclass(frozen=True, kw_only=True)
class TrackingParams:
    """Section ``tracking``.

    Attributes:
        experiment: name of the MLflow experiment that gets the runs.
        system_metrics: whether each training's run also gets the machine's load, memory, disk and network, and the
            cards', every ten seconds.
    """

    experiment: str = "deepsky"
    system_metrics: bool = False

    def beside(self, what: str) -> "TrackingParams":
        """Return the same for an experiment of its own, EXPERIMENT-WHAT."""
        return replace(self, experiment=f"{self.experiment}-{what}")

    def __post_init__(self) -> None:
        """Refuse a name that MLflow could not show."""
        if not self.experiment.strip() or not self.experiment.isprintable():
            raise ValueError(f"experiment {self.experiment!r} is no name")
