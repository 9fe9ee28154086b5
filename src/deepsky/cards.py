"""NVIDIA cards, asked for without a slow library."""

import os
import subprocess
from pathlib import Path

_DRIVER_S = 30


def has_gpu() -> bool:
    """Tell whether this process may use an NVIDIA card."""
    return os.environ.get("CUDA_VISIBLE_DEVICES") != "" and Path("/dev/nvidiactl").exists()


def visible_cards() -> list[str]:
    """Return the NVIDIA cards that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        return [one.strip() for one in chosen.split(",") if one.strip()]
    # CUDA counts those that are there, whatever their files are called: a container may have nvidia3 alone.
    return list(
        map(str, range(sum(path.name.removeprefix("nvidia").isdigit() for path in Path("/dev").glob("nvidia*"))))
    )


def memory_bytes() -> int | None:
    """Return how much memory the card has that this process computes on; None where NVIDIA's own tool does not say."""
    cards = visible_cards()
    if not cards:
        return None
    command = ["nvidia-smi", f"--id={cards[0]}", "--query-gpu=memory.total", "--format=csv,noheader,nounits"]
    try:
        said = subprocess.run(command, capture_output=True, text=True, timeout=_DRIVER_S, check=True).stdout
        return int(said) << 20  # it counts in MiB
    except (OSError, subprocess.SubprocessError, ValueError):
        return None
