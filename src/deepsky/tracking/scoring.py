"""A logged network as ``mlflow.pyfunc.load_model`` and MLflow's scoring server load it."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from deepsky.parallel import KERAS_LOCK

_BATCH_SIZE = 32  # images, or views of images, that go through the network together


class ScoredNetwork:
    """A trained network behind MLflow's interface of models.

    Attributes:
        card: what it was made for.
    """

    def __init__(self, path: Path) -> None:
        """Load the ``.h5``.

        Raises:
            DataError: it is not one that the train stage wrote.
        """
        from deepsky.networks.views import images_at_once  # Keras takes seconds to import
        from deepsky.training.saved import load_network

        self._network, self.card = load_network(path)
        self._batch_size = images_at_once(self._network, _BATCH_SIZE)

    def get_raw_model(self) -> "ScoredNetwork":
        """Return what answers; MLflow's ``PyFuncModel`` hands it on."""
        return self

    def predict(self, model_input: npt.NDArray[Any], params: dict[str, Any] | None = None) -> pd.DataFrame:
        """Return one row per image, one column per class (or vote fraction).

        Args:
            model_input: (n, height, width, channel), as the network takes them.
            params: MLflow hands them over; there are none.
        """
        from deepsky.training.predict import predict_batches

        with KERAS_LOCK:  # a server answers in several threads
            answers = predict_batches(self._network, np.asarray(model_input), self._batch_size)
        return pd.DataFrame(answers, columns=list(self.card.outputs))


def _load_pyfunc(path: str) -> ScoredNetwork:
    """Load what MLmodel calls its data; MLflow knows this function by its name."""
    return ScoredNetwork(Path(path))
