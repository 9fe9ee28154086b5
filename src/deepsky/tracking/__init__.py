"""Everything that touches MLflow."""

import os

# Read by mlflow when it is first imported: it sends nothing home, and says only what is wrong, unless the user asks.
for _name, _value in {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # which may hold a password
}.items():
    os.environ.setdefault(_name, _value)
