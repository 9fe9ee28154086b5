"""Files in the artifact store: trained networks are not kept there a second time."""

import shutil
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit
from urllib.request import url2pathname

if TYPE_CHECKING:  # it takes seconds to import
    from mlflow.entities import LoggedModel
    from mlflow.tracking import MlflowClient

_NETWORK = ".h5"


def log_files(client: "MlflowClient", run_id: str, path: Path, folder: str = "") -> None:
    """Log a file, or all that a folder holds, into the artifacts of a run; see `place_files` for a local store.

    Args:
        client: of the store.
        run_id: of the run.
        path: the file or folder.
        folder: among the artifacts; "" for their top.

    Raises:
        MlflowException: the store refuses; also what its transport and the file system raise.
    """
    root = local_folder(client.get_run(run_id).info.artifact_uri)
    if root is not None:
        place_files(root, path, folder)
    elif path.is_dir():
        client.log_artifacts(run_id, str(path), folder or None)
    else:
        client.log_artifact(run_id, str(path), folder or None)


def log_model_files(client: "MlflowClient", model: "LoggedModel", path: Path) -> None:
    """Log a file, or all that a folder holds, into the top of a model's files; raises as ``log_files``."""
    root = local_folder(model.artifact_location)
    if root is not None:
        place_files(root, path)
    elif path.is_dir():
        client.log_model_artifacts(model.model_id, str(path))
    else:
        client.log_model_artifact(model.model_id, str(path))


def place_files(root: Path, path: Path, folder: str = "") -> None:
    """Put a file, or all that a folder holds, below a local folder.

    Trained networks are hard-linked where the file system can: they are nearly all the bytes, and DVC's cache holds
    them already. Nobody changes one in place (stages replace whole files, DVC makes its own read-only), and whoever
    deletes a run, or collects DVC's garbage, takes away one of its names. All else is copied, so that a table that a
    person edits stays in the run as it was.

    Args:
        root: the local folder.
        path: the file or folder.
        folder: below ``root``; "" for its top.

    Raises:
        OSError: a file cannot be read or written.
    """
    top, files = (path, sorted(path.rglob("*"))) if path.is_dir() else (path.parent, [path])
    for file in files:
        target = root / folder / file.relative_to(top)
        if file.is_dir():
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        target.unlink(missing_ok=True)  # a file that is there may be a link: nobody writes into it
        if not (file.suffix == _NETWORK and _link(file, target)):
            shutil.copyfile(file, target)


def local_folder(uri: str) -> Path | None:
    """Return the folder that a URI of artifacts names; None where they are elsewhere."""
    parts = urlsplit(uri)
    if parts.scheme not in ("", "file"):
        return None
    return Path(url2pathname(parts.path if parts.scheme else uri))  # MLflow reads a bare path as a URL's, too


def _link(file: Path, target: Path) -> bool:
    """Give a file a second name; False where that cannot be, as on another file system."""
    try:
        target.hardlink_to(file.resolve())  # the file itself, where DVC links by symlinks
    except OSError:
        return False
    return True
