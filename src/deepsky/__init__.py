"""Classify deep-space objects from images: DVC stages, Keras networks, MLflow runs."""

from deepsky import lean_keras  # noqa: F401 - before anybody imports Keras
