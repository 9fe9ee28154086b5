"""Hyperparameter search; everything that touches Optuna."""
