"""Stages of dvc.yaml side by side: one process keeps DVC's books, warm workers run the stages."""
