"""Section ``evaluate`` of params.yaml."""

from dataclasses import dataclass
from typing import Literal

Baseline = Literal["logistic_regression", "svm", "random_forest", "gradient_boosting"]


@dataclass(frozen=True, kw_only=True)
class EvaluateParams:
    """Section ``evaluate``.

    Attributes:
        baselines: classical methods that learn the same frozen features as each head.
        seed: of those of them that draw.
        audit: whether to tell what can be reached without looking at the pictures (see ``shortcuts``).
    """

    baselines: tuple[Baseline, ...] = ()
    seed: int = 1
    audit: bool = False

    def __post_init__(self) -> None:
        """Refuse a seed that no generator takes, and a method named twice."""
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"seed must lie between 0 and {2**32 - 1}, not {self.seed}")
        if len(set(self.baselines)) < len(self.baselines):
            raise ValueError(f"baselines {', '.join(self.baselines)} names one twice")
