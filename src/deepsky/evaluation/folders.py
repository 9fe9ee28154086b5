"""The folder of one evaluated run: written whole, and left alone as long as what it was made of stays the same."""

import hashlib
import json
import shutil
from collections.abc import Iterable, Mapping
from math import isfinite
from pathlib import Path
from typing import Any

from deepsky.errors import DataError
from deepsky.evaluation.figures import save_png
from deepsky.evaluation.result import Evaluation
from deepsky.files import whole_file

_MADE_OF = ("run.json", "predictions.csv", "predictions_plain.csv", "history.csv")
SCORES = "scores.json"
_DIGITS = 6


def evaluation_key(trained: Path, reference: Path | None, *, pictures: bool, code: str) -> str:
    """Return a hash of all that an evaluation is made of.

    The dataset's images are not read for it: predictions.csv holds the network's answer to each of them.

    Args:
        trained: folder of the run.
        reference: folder of the run it is compared with.
        pictures: whether pictures are drawn, for which the network counts too.
        code: fingerprint of the code that evaluates.

    Raises:
        DataError: a file cannot be read.
    """
    paths = [trained / name for name in (*_MADE_OF, *(["model.h5"] if pictures else []))]
    paths += [reference / name for name in ("run.json", "predictions.csv")] if reference else []
    model = trained / "model.h5"
    if not model.is_file():
        raise DataError(model, "does not exist", "run dvc repro to train the run again")
    size = model.stat().st_size  # it is told
    parts = [code, f"{size} bytes", *(f"{path.name} {_digest(path)}" for path in paths)]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def kept_scores(folder: Path, key: str) -> dict[str, Any] | None:
    """Return ``summary`` and ``tracked`` of an evaluation that stands there whole; None where it is another or none."""
    try:
        scores = json.loads((folder / SCORES).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if not isinstance(scores, dict) or scores.get("key") != key or scores.get("files") != _contents(folder):
        return None
    return scores


def kept_entries(path: Path) -> dict[str, Any]:
    """Return the mapping that a JSON file of an earlier evaluation holds; nothing where it is not whole."""
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return dict(entries) if isinstance(entries, dict) else {}


def write_evaluation(folder: Path, found: Evaluation) -> None:
    """Write metrics.json, tables and figures into an empty folder."""
    write_json(folder / "metrics.json", found.details)
    for name, table in found.tables.items():
        (folder / name).parent.mkdir(exist_ok=True)
        table.round(_DIGITS).to_csv(folder / name, index=False, lineterminator="\n")
    for name, figure in found.figures.items():
        save_png(figure, folder / name)


def write_scores(folder: Path, found: Evaluation, key: str) -> None:
    """Write scores.json beside everything else, by which ``kept_scores`` knows it again."""
    content = {"key": key, "files": _contents(folder), "summary": found.summary, "tracked": found.tracked}
    write_json(folder / SCORES, content)


def remove_others(out: Path, kept: Iterable[Path]) -> None:
    """Remove everything in a folder of DATASET/LABEL folders but some of these, and files beside them."""
    stay = set(kept)
    for dataset in set(out.iterdir() if out.is_dir() else ()) - stay:
        if not any(folder.parent == dataset for folder in stay):
            shutil.rmtree(dataset) if dataset.is_dir() else dataset.unlink()
            continue
        for entry in dataset.iterdir():
            if entry not in stay:
                shutil.rmtree(entry) if entry.is_dir() else entry.unlink()


def write_json(path: Path, value: object, *, sort_keys: bool = False) -> None:
    """Write a value with its floats rounded: the last digits differ between machines and tell nothing."""
    with whole_file(path) as temporary:
        text = json.dumps(_rounded(value), indent=2, sort_keys=sort_keys, allow_nan=False)
        temporary.write_text(text + "\n", encoding="utf-8")


def _rounded(value: Any) -> Any:
    """Round every float; JSON has no NaN: None."""
    if isinstance(value, float):
        return round(value, _DIGITS) if isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _rounded(item) for key, item in value.items()}
    return [_rounded(item) for item in value] if isinstance(value, (list, tuple)) else value


def _contents(folder: Path) -> dict[str, str]:
    """Return the hash of every file but scores.json, by its path."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path != folder / SCORES)
    return {path.relative_to(folder).as_posix(): _digest(path) for path in files}


def _digest(path: Path) -> str:
    """Return a file's hash; nothing where there is none, as predictions_plain.csv may be missing."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        return ""
    except OSError as error:
        raise DataError(path, f"cannot be read ({error.strerror})", "run dvc repro to write it again") from error
