"""What a run was computed by: processor, cards, Python, libraries."""

import os
import platform
import subprocess
import sys
from functools import cache
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

from deepsky.cards import visible_cards
from deepsky.lean_keras import computes_deterministically

_DRIVER_S = 30


def environment() -> dict[str, Any]:
    """Return what a result may depend on, by name.

    Returns:
        ``python``, ``system``, ``processor``, ``n_processors``, ``driver`` (of the cards; empty without any),
        ``packages`` (version by name); where Keras is in use also its ``backend`` and ``devices``, and whether a GPU
        was to give the same bytes each time (``deterministic``).
    """
    found: dict[str, Any] = {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "n_processors": os.cpu_count(),
        "driver": _driver() if visible_cards() else "",
        "packages": _packages(),
    }
    keras = sys.modules.get("keras")
    if keras is not None:
        found |= {"backend": keras.backend.backend(), "devices": sorted(keras.distribution.list_devices())}
        found["deterministic"] = computes_deterministically()
    return found


@cache
def _packages() -> dict[str, str]:
    return dict(sorted((one.name.lower(), one.version) for one in distributions() if one.name))


@cache
def _processor() -> str:
    """Return the processor's name: of one code and data, trainings end differently on different ones."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:  # not Linux
        return platform.processor()
    facts = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    parts = (facts.get("model name", platform.processor()), facts.get("cpu family"), facts.get("model"))
    return " ".join(part for part in parts if part)


@cache
def _driver() -> str:
    command = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_DRIVER_S, check=True)
    except (OSError, subprocess.SubprocessError):
        return "a card whose driver does not answer"
    return "; ".join(done.stdout.split("\n")).strip("; ")
