"""What came out when a run was trained again, beside what had come out."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from deepsky.evaluation.fractions import row_errors
from deepsky.evaluation.trained import Trained, read_trained
from deepsky.intervals import Resampling, rmse_gain_interval, share_gain_interval, unreliable
from deepsky.tracking.environment import environment
from deepsky.tracking.recorded import RecordedRun, differing
from deepsky.tracking.trained_files import model_hash, run_key

# Of the training's process, not of this one, which has no Keras; reproduce trains under the run's backend and settings.
_NO_MATTER = ("n_processors", "backend", "devices", "deterministic")
_FEW = 6
_NOT_THE_SAME = "a GPU gives the same bytes only with deterministic: true in params.yaml"
_MEANING = {
    "equal": "within the tolerance, which is that the 95 % interval of the score's change holds 0",
    "different": "more than the tolerance allows",
}


@dataclass(frozen=True)
class Comparison:
    """The outcome.

    Attributes:
        word: ``same`` to the byte; ``equal`` within the tolerance, on another machine, with other versions or on a
            GPU; or ``different``.
        lines: what was found, for a person.
    """

    word: Literal["same", "equal", "different"]
    lines: tuple[str, ...]


def compare(stored: RecordedRun, recorded: Mapping[str, Any], out: Path, scratch: Path) -> Comparison:
    """Compare a network that was trained again with the run.

    On the same kind of processor and with the same versions, the same bytes must come out; on a GPU if it was asked for
    them. Elsewhere a training goes another way from the first rounding on; then the tolerance is that the gain or loss
    of the score, on the same objects, has a 95 % interval that holds 0.

    Args:
        stored: the run.
        recorded: what it recorded of its origin.
        out: folder of the new network.
        scratch: where the run's predictions may be put.

    Raises:
        TrackingError: the store cannot be used.
        DataError: the new folder is not what stage train writes.
    """
    then, now = (stored.hidden("model"), stored.hidden("key")), (model_hash(out), run_key(out))
    if then == now:
        return Comparison("same", ("same: model.h5, predictions.csv and run.json are the same bytes",))
    names = ("model.h5", "predictions.csv and run.json")
    lines = [f"{name}: other bytes" for name, one, other in zip(names, then, now, strict=True) if one != other]
    changed = _machine_lines(recorded["environment"])
    shift, is_within = _shift(stored, out, scratch)
    lines += [*shift, *(changed or ["processor and versions are the same: the same bytes should have come out"])]
    word: Literal["equal", "different"] = "equal" if changed and is_within else "different"
    return Comparison(word, (*lines, f"{word}: {_MEANING[word]}"))


def score_of(folder: Path) -> tuple[str, float]:
    """Return the measure and the test score of a trained network."""
    one = _read(folder)
    rows = one.rows("test")
    if one.target == "class":
        return "accuracy", float((rows["predicted"] == rows["label"]).mean())
    return "RMSE", float(np.sqrt(row_errors(rows).mean()))


def _shift(stored: RecordedRun, out: Path, scratch: Path) -> tuple[list[str], bool]:
    """Say how the answers to the tested objects changed; and whether that is within the tolerance."""
    new = _read(out)
    words = dict.fromkeys(("id", "split", "group", "label", "predicted", "correct"), str)
    old = pd.read_csv(stored.file("predictions.csv", scratch), dtype=words, keep_default_na=False)
    tested, measure = new.rows("test"), "accuracy" if new.target == "class" else "RMSE"
    before = old.set_index("id").reindex(tested["id"]).reset_index()
    answers = [name for name in tested if name.startswith("p_")]
    if before["split"].isna().any() or set(answers) - set(before):
        return ["predictions.csv: other objects or classes are answered"], False
    largest = np.abs(tested[answers].to_numpy() - before[answers].to_numpy()).max()
    groups = Resampling(tested["group"])
    doubt = f", {unreliable(groups.n_groups)}" if unreliable(groups.n_groups) else ""
    if new.target == "class":
        was, is_now = ((rows["predicted"] == rows["label"]).to_numpy() for rows in (before, tested))
        _, low, high = share_gain_interval(is_now, was, groups)
        scores, n_other = (
            (was.mean(), is_now.mean()),
            int((before["predicted"].to_numpy() != tested["predicted"].to_numpy()).sum()),
        )
    else:
        squares = row_errors(before), row_errors(tested)
        _, low, high = rmse_gain_interval(squares[1], squares[0], groups)
        scores, n_other = tuple(np.sqrt(np.mean(squares, axis=1))), int((squares[0] != squares[1]).sum())
    return [
        f"test {measure} {scores[0]:.4f} then, {scores[1]:.4f} now: gain {low:+.4f} to {high:+.4f} (95 %{doubt})",
        f"{n_other} of {len(tested)} objects are answered otherwise; answers differ by {largest:.2g} at most",
    ], low <= 0 <= high


def _machine_lines(then: Mapping[str, Any]) -> list[str]:
    """Say in what this machine and its packages differ from those that trained the run."""
    if not then:
        return ["what the run was computed by is not known: its files came from the DVC cache"]
    now = environment()
    facts = [{name: value for name, value in one.items() if name not in _NO_MATTER} for one in (then, now)]
    packages = differing([one.pop("packages") for one in facts])
    lines = [_NOT_THE_SAME] if _may_differ(then) else []
    lines += [f"{name}: {before} then, {after} now" for name, (before, after) in differing(facts).items()]
    told = [f"{name} {before or 'none'} then, {after or 'none'} now" for name, (before, after) in packages.items()]
    lines += told[:_FEW]
    if len(packages) > _FEW:
        lines.append(f"... and {len(packages) - _FEW} more packages")
    return lines


def _may_differ(then: Mapping[str, Any]) -> bool:
    """Tell whether a run was computed on a card that need not give the same bytes twice."""
    return not then.get("deterministic") and any("gpu" in device for device in then.get("devices", ()))


def _read(folder: Path) -> Trained:
    facts = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    return read_trained(folder, facts["run"])
