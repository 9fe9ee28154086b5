"""Cached features and fitting; knows nothing of tracking."""
