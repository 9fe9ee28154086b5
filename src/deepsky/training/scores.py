"""Score many classifiers on the same rows at once."""

import numpy as np
import numpy.typing as npt


def score_heads(
    probabilities: npt.NDArray[np.float32], labels: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Score many classifiers on the same rows at once.

    Args:
        probabilities: (classifier, row, class); NaN is allowed and gives a NaN loss.
        labels: class index of each row, (row,).

    Returns:
        Cross-entropy with probabilities clipped as Keras does, accuracy, and macro F1 as `score` defines it; each
        (classifier,).
    """
    n_heads, n_rows, n_classes = probabilities.shape
    of_truth = np.clip(probabilities[:, np.arange(n_rows), labels].astype(np.float64), 1e-7, 1 - 1e-7)
    answers = probabilities.argmax(axis=2)
    cells = (np.arange(n_heads)[:, None] * n_classes + labels) * n_classes + answers
    counts = np.bincount(cells.ravel(), minlength=n_heads * n_classes**2).reshape(n_heads, n_classes, n_classes)
    right = counts.diagonal(axis1=1, axis2=2)
    occurring = counts.sum(axis=1) + counts.sum(axis=2)
    f1 = np.divide(2 * right, occurring, out=np.zeros(right.shape), where=occurring > 0)
    f1_macro = f1.sum(axis=1) / (occurring > 0).sum(axis=1)
    return -np.log(of_truth).mean(axis=1), right.sum(axis=1) / n_rows, f1_macro
