"""Outputs that obey the decision tree of Galaxy Zoo by construction."""

from typing import Any

import keras
from keras import ops

from deepsky.catalogue.decision_tree import QUESTIONS, places


@keras.saving.register_keras_serializable(f"this .h5 needs deepsky: import {__name__} first")
class TreeFractions(keras.layers.Layer):
    """Logits -> vote fractions: a softmax inside each question, times the fraction of the answer that leads to it.

    Both sides are (n, 37), in the order of ``decision_tree.COLUMNS``.

    Source:
        ``deepsky.catalogue.decision_tree.compose``, of which this is the differentiable form.
    """

    def call(self, logits: Any) -> Any:
        """Go down the tree: a parent's question has a lower number than its children's."""
        parts: list[Any] = []
        of_column: dict[str, Any] = {}
        for question in QUESTIONS:
            shares = ops.softmax(logits[:, places(question)], axis=-1)
            if question.parent is not None:
                shares = shares * of_column[question.parent]
            parts.append(shares)
            of_column |= {column: shares[:, place : place + 1] for place, column in enumerate(question.columns)}
        return ops.concatenate(parts, axis=-1)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Return the input's."""
        return input_shape
