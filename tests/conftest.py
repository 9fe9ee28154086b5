import os
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
REAL_DATA = Path(os.environ.get("DEEPSKY_REAL_DATA", ROOT.parent / "shared" / "data"))
REAL_WEIGHTS = Path(os.environ.get("DEEPSKY_REAL_WEIGHTS", ROOT.parent / "shared" / "weights"))


def _existing(path: Path) -> Path:
    if not path.exists():
        pytest.skip(f"needs the real file {path}")
    return path


@pytest.fixture(scope="session")
def real_data() -> Callable[[str], Path]:
    """A real survey file by its path below the real-data folder; skips when it is not there."""
    return lambda relative: _existing(REAL_DATA / relative)


@pytest.fixture(scope="session")
def real_weights() -> Callable[[], Path]:
    """The folder with real ImageNet weights; skips when it is not there."""
    return lambda: _existing(REAL_WEIGHTS / "mobilenet_1_0_224_tf_no_top.h5").parent
