"""Everything that touches MLflow."""

import os

# Read by mlflow when it is first imported: it sends nothing home and logs only warnings unless the user asks otherwise.
for _name, _value in {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # with its password
}.items():
    os.environ.setdefault(_name, _value)
