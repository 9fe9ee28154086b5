"""How often intervals of an accuracy hold the truth where the objects of a field are more alike than others.

python benchmarks/intervals.py
"""

import numpy as np

from deepsky.intervals import Resampling, share_interval, wilson_interval

N_DRAWS, PER_FIELD = 1000, 8
FIELDS, ACCURACIES, CORRELATIONS = (5, 20, 100), (0.7, 0.95), (0.1, 0.4)


def main() -> None:
    """Draw test parts of fields that have accuracies of their own, and count how often each interval holds the mean."""
    print("| fields | accuracy | correlation | Wilson's interval, objects | interval over groups |")
    print("|---|---|---|---|---|")
    for n_fields in FIELDS:
        field = np.repeat(np.arange(n_fields), PER_FIELD)
        rows = Resampling(field)
        for accuracy in ACCURACIES:
            for correlation in CORRELATIONS:
                held = _held(np.random.default_rng(1), field, rows, accuracy, correlation)
                print(f"| {n_fields} | {accuracy} | {correlation} | {held[0]:.0%} | {held[1]:.0%} |")


def _held(
    rng: np.random.Generator, field: np.ndarray, rows: Resampling, accuracy: float, correlation: float
) -> tuple[float, float]:
    """Return how often Wilson's interval holds the accuracy, and how often the one over groups does."""
    scale, n_held = (1 - correlation) / correlation, np.zeros(2)
    for _ in range(N_DRAWS):
        of_fields = rng.beta(accuracy * scale, (1 - accuracy) * scale, rows.n_groups)
        is_right = rng.random(len(field)) < of_fields[field]
        intervals = wilson_interval(is_right.sum(), len(field)), share_interval(is_right, rows)
        n_held += [low <= accuracy <= high for low, high in intervals]
    return tuple(n_held / N_DRAWS)


if __name__ == "__main__":
    main()
