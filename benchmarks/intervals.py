"""How often intervals of accuracy and macro F1 hold the truth where the objects of a field are more alike than others.

python benchmarks/intervals.py
"""

import numpy as np

from deepsky.intervals import Resampling, f1_interval, share_interval, wilson_interval

N_DRAWS, PER_FIELD = 1000, 8
N_CLASSES = 3  # equally frequent, and confused with each other alike: then the true macro F1 is the accuracy
FIELDS, ACCURACIES, CORRELATIONS = (5, 20, 100), (0.7, 0.95), (0.1, 0.4)


def main() -> None:
    """Draw test parts of fields that have accuracies of their own, and count how often each interval holds the mean."""
    print("| fields | accuracy | correlation | Wilson's interval, objects | over groups | macro F1, over groups |")
    print("|---|---|---|---|---|---|")
    for n_fields in FIELDS:
        field = np.repeat(np.arange(n_fields), PER_FIELD)
        rows = Resampling(field)
        for accuracy in ACCURACIES:
            for correlation in CORRELATIONS:
                held = _held(np.random.default_rng(1), field, rows, accuracy, correlation)
                print(f"| {n_fields} | {accuracy} | {correlation} | {' | '.join(f'{one:.0%}' for one in held)} |")


def _held(
    rng: np.random.Generator, field: np.ndarray, rows: Resampling, accuracy: float, correlation: float
) -> tuple[float, ...]:
    """Return how often the accuracy lies in Wilson's interval and in the one over groups, and in that of the F1."""
    scale, n_held = (1 - correlation) / correlation, np.zeros(3)
    for _ in range(N_DRAWS):
        of_fields = rng.beta(accuracy * scale, (1 - accuracy) * scale, rows.n_groups)
        is_right = rng.random(len(field)) < of_fields[field]
        truth = rng.integers(0, N_CLASSES, len(field))
        answer = np.where(is_right, truth, (truth + rng.integers(1, N_CLASSES, len(field))) % N_CLASSES)
        intervals = (
            wilson_interval(is_right.sum(), len(field)),
            share_interval(is_right, rows),
            f1_interval(truth, answer, N_CLASSES, rows),
        )
        n_held += [low <= accuracy <= high for low, high in intervals]
    return tuple(n_held / N_DRAWS)


if __name__ == "__main__":
    main()
