import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import deepsky.tracking  # noqa: F401  # what it sets for mlflow is to outlive the test that first imports it

ROOT = Path(__file__).resolve().parents[1]
REAL_DATA = Path(os.environ.get("DEEPSKY_REAL_DATA", ROOT.parent / "shared" / "data"))
REAL_WEIGHTS = Path(os.environ.get("DEEPSKY_REAL_WEIGHTS", ROOT.parent / "shared" / "weights"))


def _existing(path: Path) -> Path:
    if not path.exists():
        pytest.skip(f"needs the real file {path}")
    return path


@pytest.fixture(autouse=True)
def _same_environment() -> Iterator[None]:
    """Undo what a test does to the environment: a search would choose the backend of every process started later."""
    before = dict(os.environ)
    yield
    for name in os.environ.keys() - before.keys():
        del os.environ[name]
    os.environ.update({name: value for name, value in before.items() if os.environ.get(name) != value})


@pytest.fixture(scope="session")
def real_data() -> Callable[[str], Path]:
    """A real survey file by its path below the real-data folder; skips when it is not there."""
    return lambda relative: _existing(REAL_DATA / relative)


@pytest.fixture(scope="session")
def real_weights() -> Callable[[], Path]:
    """The folder with real ImageNet weights; skips when it is not there."""
    return lambda: _existing(REAL_WEIGHTS / "mobilenet_1_0_224_tf_no_top.h5").parent


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """URL of a PostgreSQL server of the tests' own; skips where none is installed."""
    from tests.postgresql import postgresql

    with postgresql() as url:
        yield url


# Files of minutes come first, else one of the processes side by side would end with one of them alone.
_LONG = ("test_pipeline", "test_real_sky", "test_train", "test_backends", "test_population")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Bring the long files forward."""
    items.sort(key=lambda item: _LONG.index(item.path.stem) if item.path.stem in _LONG else len(_LONG))
