"""What tests of several rooms share."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from support.once import made_once

from csfd_core.runtime.tracking import prepare_tracking


@pytest.fixture(scope="session")
def start_mlflow(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path], str]:
    """Give a folder an empty MLflow of its own; return its URI.

    MLflow takes two seconds to set its tables up, and a copy takes none.
    """

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
