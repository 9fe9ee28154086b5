"""Learning-rate range test: raise the rate step by step, and see where the loss falls fastest."""

import math

import keras
import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.ndimage import gaussian_filter1d

from deepsky.errors import DataError
from deepsky.interruption import uninterrupted
from deepsky.training.batches import TrainBatches

LOWEST, HIGHEST = 1e-7, 1.0
COLUMNS = ("step", "learning_rate", "loss", "smoothed")
_DIVERGED = 4.0  # times the best loss; both are means of a few steps
_MEAN_OF = 5
_SMOOTH_DECADES = 1 / 3  # standard deviation of the smoothing, in powers of ten of the rate


def raise_rate(learner: keras.Model, batches: TrainBatches, n_steps: int) -> pd.DataFrame:
    """Train a compiled model for some steps, each at a higher rate than the one before.

    Args:
        learner: inputs -> answer; its weights are spoiled.
        batches: the train rows; as many epochs of them as the steps need.
        n_steps: from LOWEST to HIGHEST, by a constant factor.

    Returns:
        One row per step with COLUMNS, until the loss diverges; ``smoothed`` is the loss averaged over neighbouring
        rates.

    Raises:
        DataError: the very first losses are not finite.

    Source:
        Smith 2017, arXiv:1506.01186.
    """
    losses: list[float] = []
    means: list[float] = []
    rates = np.geomspace(LOWEST, HIGHEST, n_steps)
    for step, rate in enumerate(rates):
        place = step % len(batches)
        if step and not place:
            batches.on_epoch_end()
        learner.optimizer.learning_rate = float(rate)
        learner.reset_metrics()
        with uninterrupted():
            loss = float(np.ravel(learner.train_on_batch(*batches[place]))[0])
        if not math.isfinite(loss):
            break
        losses.append(loss)
        means.append(float(np.mean(losses[-_MEAN_OF:])))
        if step >= _MEAN_OF and means[-1] > _DIVERGED * min(means):
            break
    if len(losses) < 2:
        raise DataError("loss", "is not finite at the lowest learning rate", "look for pixels that are no numbers")
    smoothed = gaussian_filter1d(losses, _SMOOTH_DECADES * (n_steps - 1) / math.log10(HIGHEST / LOWEST))
    values = (range(1, len(losses) + 1), rates[: len(losses)], losses, smoothed)
    return pd.DataFrame(dict(zip(COLUMNS, values, strict=True)))


def suggest_rate(table: pd.DataFrame) -> float | None:
    """Return the rate at which the smoothed loss falls fastest; None where it never falls.

    Only rates below that of the smallest loss count: behind it the loss may swing.

    Args:
        table: of ``raise_rate``.
    """
    smoothed: npt.NDArray[np.float64] = table["smoothed"].to_numpy()
    slope = np.gradient(smoothed)[: smoothed.argmin() + 1]
    steepest = int(slope.argmin())
    return float(table["learning_rate"].iloc[steepest]) if slope[steepest] < 0 else None
