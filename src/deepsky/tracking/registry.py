"""Registered networks: one registered model per dataset, its versions and their aliases."""

import re
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import mlflow
from mlflow.entities import LoggedModel
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.models import Model
from mlflow.tracking import MlflowClient

from deepsky.errors import ConfigError, TrackingError
from deepsky.files import whole_folder
from deepsky.tracking.artifacts import local_folder
from deepsky.tracking.model_card import write_card
from deepsky.tracking.secrets import masked
from deepsky.tracking.store import prepare, store_errors, tracking_uri
from deepsky.tracking.trained_files import NETWORK_FILE, PREFIX

CARD = "MODEL_CARD.md"
_ALIAS = re.compile(r"(?!(v\d+|latest)$)[\w-]{1,255}", re.IGNORECASE)  # as MLflow wants it
_UNKNOWN = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")  # as MLflow answers
MAIN_FIGURES = ("test_accuracy", "test_rmse")


@dataclass(frozen=True)
class Version:
    """One version of a registered model.

    Attributes:
        name: of the registered model, which is that of the dataset.
        number: of the version.
        run: name of the run.
        figures: its main figure by name; empty where it was not evaluated.
    """

    name: str
    number: str
    run: str
    figures: dict[str, float]


def promote(experiment: str, run_id: str, alias: str) -> tuple[Version, Version | None]:
    """Make a run's network the version of its dataset's registered model that an alias names.

    Args:
        experiment: of MLflow.
        run_id: of the run.
        alias: for example ``champion``.

    Returns:
        The version, and the one that the alias named before; None: there was none.

    Raises:
        ConfigError: this cannot be an alias.
        TrackingError: the store cannot be used, or the run has no network.
    """
    if not _ALIAS.fullmatch(alias):  # MLflow would say so when the version is made
        remedy = "give letters, digits, - and _, but neither latest nor the like of v3"
        raise ConfigError(f"--alias {alias!r}", "cannot be an alias", remedy)
    client, _ = prepare(experiment)
    mlflow.set_tracking_uri(tracking_uri())  # MLflow's registry looks up the models of runs there
    with store_errors():
        run = client.get_run(run_id)
        if not run.outputs.model_outputs:
            raise TrackingError(f"run {run_id}", "has no network in MLflow", "give a finished run of stage train")
        model = client.get_logged_model(run.outputs.model_outputs[0].model_id)
        name = run.data.params["dataset"]
        with suppress(MlflowException):  # it is there already; whatever else is wrong, the next call says
            client.create_registered_model(name, description=f"Networks that learned from {name}.")
        before = _aliased(client, name, alias)
        version = _of_model(client, name, model) or client.create_model_version(
            name, f"{PREFIX}{model.model_id}", run_id, model_id=model.model_id
        )
        described = Model.load(_fetched(model, "MLmodel"))
        card = write_card(run, model, described, version)
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / CARD).write_text(card)
            client.log_model_artifact(model.model_id, str(Path(folder) / CARD))
        client.update_model_version(name, version.version, card)
        client.set_registered_model_alias(name, alias, version.version)
        return _described(client, version), _described(client, before) if before else None


def only_model() -> str:
    """Return the name of the registered model where there is only one.

    Raises:
        ConfigError: there are several.
        TrackingError: there is none, or the store cannot be used.
    """
    with store_errors():
        names = sorted(one.name for one in MlflowClient(tracking_uri()).search_registered_models())
    if not names:
        raise TrackingError(masked(tracking_uri()), "has no registered network", "run deepsky promote RUN")
    if len(names) > 1:
        raise ConfigError("serve", "does not know which network", f"name one of: {', '.join(names)}")
    return str(names[0])


def resolved(name: str) -> str:
    """Return the whole URI of a registered network.

    Args:
        name: MODEL@ALIAS, MODEL/VERSION or MODEL, which stands for MODEL@champion; ``models:/`` may stand before it.
    """
    name = name.removeprefix(PREFIX)
    return PREFIX + (name if "@" in name or "/" in name or name.startswith("m-") else f"{name}@champion")


def network_file(uri: str, cache: Path) -> Path:
    """Return the ``.h5`` of a registered network, downloaded where the store is no folder of this machine.

    Args:
        uri: as ``resolved`` takes it.
        cache: a folder for what is downloaded.

    Raises:
        TrackingError: the store cannot be used, or knows no such version.
    """
    model = registered_model(resolved(uri))
    with store_errors():
        if local := local_folder(model.artifact_location):
            return local / NETWORK_FILE
        kept = cache / model.model_id
        if not kept.is_dir():
            with whole_folder(kept) as fresh:
                _fetched(model, NETWORK_FILE, fresh)
        return kept / NETWORK_FILE


def registered_model(uri: str) -> LoggedModel:
    """Return the model that a whole URI names.

    Raises:
        TrackingError: the store cannot be used, or knows no such version.
    """
    client = MlflowClient(tracking_uri())
    with store_errors():
        try:
            return client.get_logged_model(_model_id(client, uri))
        except MlflowException as error:
            if error.error_code not in _UNKNOWN:
                raise
            remedy = "run deepsky promote RUN, which registers one; make ui shows their names"
            raise TrackingError(uri, "is no registered network of this MLflow store", remedy) from error


def _model_id(client: MlflowClient, uri: str) -> str:
    """Return the id of the model that a URI names: ``models:/NAME@ALIAS``, ``models:/NAME/3`` or ``models:/ID``."""
    name = uri.removeprefix(PREFIX)
    if "@" in name:
        found = client.get_model_version_by_alias(*name.split("@", 1))
    elif "/" in name:
        found = client.get_model_version(*name.split("/", 1))
    else:
        return name
    return str(found.source.removeprefix(PREFIX))


def _aliased(client: MlflowClient, name: str, alias: str) -> ModelVersion | None:
    aliases = client.get_registered_model(name).aliases
    return client.get_model_version(name, aliases[alias]) if alias in aliases else None


def _of_model(client: MlflowClient, name: str, model: LoggedModel) -> ModelVersion | None:
    """Return the version that a model is already; None: it is none."""
    versions = client.search_model_versions(f"name = '{name}'")
    return next((one for one in versions if one.source == f"{PREFIX}{model.model_id}"), None)


def _described(client: MlflowClient, version: ModelVersion) -> Version:
    run = client.get_run(version.run_id)
    figures = {name: run.data.metrics[name] for name in MAIN_FIGURES if name in run.data.metrics}
    return Version(version.name, str(version.version), run.info.run_name, figures)


def _fetched(model: LoggedModel, file: str, folder: Path | None = None) -> str:
    place = f"{model.artifact_location}/{file}"
    return str(
        mlflow.artifacts.download_artifacts(
            artifact_uri=place, dst_path=str(folder) if folder else None, tracking_uri=tracking_uri()
        )
    )
