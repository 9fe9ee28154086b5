"""Classify deep-space objects from images: DVC stages, Keras networks, MLflow runs."""
