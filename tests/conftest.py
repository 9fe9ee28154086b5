import atexit
import gc
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import deepsky.tracking  # noqa: F401  # what it sets for mlflow is to outlive the test that first imports it

ROOT = Path(__file__).resolve().parents[1]
REAL_DATA = Path(os.environ.get("DEEPSKY_REAL_DATA", ROOT.parent / "shared" / "data"))
REAL_WEIGHTS = Path(os.environ.get("DEEPSKY_REAL_WEIGHTS", ROOT.parent / "shared" / "weights"))

# Searches of all tests share what JAX compiles; pytest's processes side by side inherit the folder of the first.
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="deepsky-compiled-")
    atexit.register(shutil.rmtree, os.environ["JAX_COMPILATION_CACHE_DIR"], ignore_errors=True)


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


def pytest_collection_finish() -> None:
    """Keep the garbage collector from what was imported: a million objects that it would look at again and again."""
    gc.collect()
    gc.freeze()


# Files of minutes come first, else one of the processes side by side would end with one of them alone.
_LONG = (
    "test_pipeline", "test_engine", "test_real_sky", "test_tuning_workers", "test_train", "test_population",
    "test_paper", "test_recipes", "test_backends",
)  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Bring the long files forward."""
    items.sort(key=lambda item: _LONG.index(item.path.stem) if item.path.stem in _LONG else len(_LONG))
