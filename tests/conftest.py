"""What tests of several rooms share. Heavy things are imported by what needs them."""

import contextlib
import gc
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis
import pytest
from support.once import made_once
from support.ordering import deal_slow

# TensorFlow's logging keeps the stderr that it finds when it is imported, and closes it
# when Dagster sets up the log of a run, unless that is the process's own. It would find
# pytest's, and no later test of the process could be captured.
with contextlib.redirect_stderr(sys.__stderr__):
    import absl.logging  # noqa: F401 - imported here for what it keeps

if TYPE_CHECKING:
    from csfd_core.store.stores import Stores

_modules_left_out = 0  # how many there were when garbage was last collected without
_USUAL = gc.get_threshold()
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "TF_NUM_INTRAOP_THREADS")


def pytest_configure() -> None:
    """Let each worker compute in one thread, before it imports what would have more.

    There are more workers than processors. Threads that wait for each other while
    others have the processor cost time and bring nothing.
    """
    if "PYTEST_XDIST_WORKER" in os.environ:
        for name in _THREADS:
            os.environ.setdefault(name, "1")


def pytest_xdist_auto_num_workers() -> int:
    """Start one worker more than there are processors.

    Some tests wait for the daemons, servers and installers that they have started.
    """
    return len(os.sched_getaffinity(0)) + 1


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Start with what is slow, in every worker."""
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    if workers > 1:
        items[:] = deal_slow(items, workers)


def pytest_collection_finish() -> None:
    """Collect garbage less often than programs do whose heap is small."""
    gc.set_threshold(20_000, 20, 20)
    _leave_modules_out()


def pytest_runtest_setup() -> None:
    """Look whether the last test has brought many modules more, as TensorFlow."""
    if len(sys.modules) > _modules_left_out + 500:
        _leave_modules_out()


@pytest.fixture
def collected_as_usual() -> Iterator[None]:
    """Collect garbage as a program does, for tests of how much memory one takes."""
    rarely = gc.get_threshold()
    gc.set_threshold(*_USUAL)
    yield
    gc.set_threshold(*rarely)


def _leave_modules_out() -> None:
    """Leave what was imported out of all later collections of garbage.

    With the modules of every test in memory, each full one takes half a second.
    """
    global _modules_left_out
    gc.collect()
    gc.freeze()
    _modules_left_out = len(sys.modules)


@pytest.fixture(scope="session")
def start_mlflow(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path], str]:
    """Give a folder an empty MLflow of its own; return its URI.

    MLflow takes two seconds to set its tables up, and a copy takes none.
    """
    from csfd_core.runtime.tracking import prepare_tracking

    def set_up(folder: Path) -> None:
        prepare_tracking(f"sqlite:///{folder}/mlflow.db")

    empty = made_once(tmp_path_factory, "mlflow", set_up) / "mlflow.db"

    def start(folder: Path) -> str:
        shutil.copy(empty, folder)
        return f"sqlite:///{folder}/mlflow.db"

    return start


@pytest.fixture(scope="module")
def uri(
    start_mlflow: Callable[[Path], str], tmp_path_factory: pytest.TempPathFactory
) -> str:
    """Of an MLflow that the tests of a module share."""
    return start_mlflow(tmp_path_factory.mktemp("mlflow"))


@pytest.fixture
def bright(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a classifier that needs no network go by the name of the basic CNN."""
    from support.drawn_crops import put_bright_classifier

    put_bright_classifier(monkeypatch)


@pytest.fixture(scope="session")
def copy_best_store(
    tmp_path_factory: pytest.TempPathFactory,
) -> "Callable[[Path], Stores]":
    """Copy a store of forty studies and the classifier that ``bright`` puts there.

    It is trained once for all tests, and is the best of a comparison.
    """
    from support.drawn_crops import put_bright_classifier
    from support.drift_store import write_best_store

    from csfd_core.store.locations import Location
    from csfd_core.store.stores import Stores

    def train(folder: Path) -> None:
        with pytest.MonkeyPatch.context() as patch:
            put_bright_classifier(patch)
            write_best_store(folder / "store")

    ready = made_once(tmp_path_factory, "best_store", train) / "store"

    def copy(folder: Path) -> Stores:
        shutil.copytree(ready, folder)
        return Stores(Location(folder))

    return copy


# A busy machine makes an example slow, not wrong.
hypothesis.settings.register_profile("csfd", deadline=None)
hypothesis.settings.load_profile("csfd")


@pytest.fixture(scope="session", autouse=True)
def _own_secret(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Digest patients with a secret of these tests, one for all workers."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CSFD_KEY_FILE", str(folder / "patients.key"))
        yield
