"""Stages of dvc.yaml side by side: one process keeps DVC's books, the stages' commands are its children."""
