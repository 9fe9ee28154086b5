"""What a search found and `dvc repro` trains beside the reference: the head of every entry of section ``tuned``."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Adopted:
    """What every entry says; beside it stands the whole section ``train`` or ``scratch.NETWORK`` of the trial.

    Attributes:
        dataset: of the search.
        network: of the search, and of the reference that the tuned network is compared with.
        study: name of the search.
        trial: its number in the study.
    """

    dataset: str
    network: str
    study: str
    trial: int

    @property
    def key(self) -> str:
        """Return the key of the entry."""
        return f"{self.dataset}-{self.network}"

    @property
    def label(self) -> str:
        """Return what the tuned network's folder and run are called."""
        return f"{self.network}_tuned"

    @property
    def origin(self) -> dict[str, object]:
        """Return what the run's parameters say of it."""
        return {"network": self.network, "study": self.study, "trial": self.trial}
