"""A run's files in the artifact store: trained networks are not kept there a second time."""

from pathlib import Path

from mlflow.tracking import MlflowClient
from mlflow.utils.file_utils import local_file_uri_to_path
from mlflow.utils.uri import is_local_uri

_NETWORK = ".h5"


def log_files(client: MlflowClient, run_id: str, path: Path, folder: str = "") -> None:
    """Log a file, or all that a folder holds, into the artifacts of a run.

    Into a local folder trained networks are hard-linked where the file system can: they are nearly all the bytes, and
    DVC's cache holds them already. Nobody changes one in place (stages replace whole files, DVC makes its own
    read-only), and whoever deletes a run, or collects DVC's garbage, takes away one of its names. All else is copied,
    so that a table that a person edits stays in the run as it was.

    Args:
        client: of the store.
        run_id: of the run.
        path: the file or folder.
        folder: among the artifacts; "" for their top.

    Raises:
        MlflowException: the store refuses; also what its transport and the file system raise.
    """
    uri = client.get_run(run_id).info.artifact_uri
    if not is_local_uri(uri, is_tracking_or_registry_uri=False):
        log = client.log_artifacts if path.is_dir() else client.log_artifact
        log(run_id, str(path), folder or None)
        return
    top, files = (path, sorted(path.rglob("*"))) if path.is_dir() else (path.parent, [path])
    for file in files:
        below = Path(folder, file.parent.relative_to(top))
        target = Path(local_file_uri_to_path(uri)) / below / file.name
        # File by file: log_artifacts writes into files that are there already, which may be links.
        if not file.is_dir() and not (file.suffix == _NETWORK and _link(file, target)):
            client.log_artifact(run_id, str(file), None if below == Path() else str(below))


def _link(file: Path, target: Path) -> bool:
    """Give a file a second name; False where that cannot be, as on another file system."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.unlink(missing_ok=True)
        target.hardlink_to(file.resolve())  # the file itself, where DVC links by symlinks
    except OSError:
        return False
    return True
