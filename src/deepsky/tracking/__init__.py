"""MLflow runs, lineage and the store: the only mlflow import."""
