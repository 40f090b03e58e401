"""Settings: one variable each, read on use, refused in one sentence."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from csfd_core.errors import SettingsError
from csfd_core.settings import (
    GROUPS,
    ClassificationSettings,
    DiagnosticSettings,
    Environment,
    PromotionSettings,
    ScheduleSettings,
    SegmentationSettings,
    Settings,
    variable_of,
)
from csfd_core.settings_page import markdown_table

ROOT = Path(__file__).resolve().parents[1]
VARIABLES = [
    variable_of(group, name) for group in GROUPS for name in group.model_fields
]


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in VARIABLES:
        monkeypatch.delenv(variable, raising=False)


def test_defaults_lie_below_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    settings = Settings.read()
    assert settings.source == f"{tmp_path}/data/source"
    assert settings.inbox == f"{tmp_path}/data/inbox"
    assert settings.store == f"{tmp_path}/data/store"
    assert settings.mlflow_tracking_uri == f"sqlite:///{tmp_path}/data/mlflow.db"
    assert settings.dagster_home == tmp_path
    assert list(tmp_path.iterdir()) == []


def test_home_moves_all_places_that_are_not_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CSFD_HOME", "there")
    monkeypatch.setenv("CSFD_STORE", "s3://bucket/store")
    monkeypatch.setenv("CSFD_INBOX", "inbox")
    settings = Settings.read()
    assert settings.home == tmp_path / "there"
    assert settings.source == f"{tmp_path}/there/data/source"
    assert settings.dagster_home == tmp_path / "there"
    assert settings.store == "s3://bucket/store"
    assert settings.inbox == f"{tmp_path}/inbox"  # as the shell would take it


def test_what_is_given_comes_before_the_environment_and_the_default(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert SegmentationSettings.read().epochs is None
    monkeypatch.setenv("CSFD_SEGMENTATION_EPOCHS", "4")
    assert SegmentationSettings.read().epochs == 4
    assert SegmentationSettings.read(epochs=None).epochs == 4
    assert SegmentationSettings.read(epochs=2).epochs == 2


@pytest.mark.parametrize("variable", VARIABLES)
def test_an_empty_variable_is_none(
    variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = [group.read() for group in GROUPS]
    monkeypatch.setenv(variable, "")
    assert [group.read() for group in GROUPS] == expected


@pytest.mark.parametrize(
    ("group", "variable", "value", "words"),
    [
        (Settings, "CSFD_PROFILE", "big", "demo or full"),
        (Settings, "CSFD_WORKERS", "-1", "a whole number of at least 0"),
        (Settings, "CSFD_DASK", "host", "tcp://host:port"),
        (Settings, "CSFD_JPEG_QUALITY", "101", "a whole number from 1 to 100"),
        (ScheduleSettings, "CSFD_RETRAIN_STUDIES", "0", "a whole number of at least 1"),
        (ScheduleSettings, "CSFD_RETRAIN_STUDIES", "x", "a whole number of at least 1"),
        (
            ScheduleSettings,
            "CSFD_RETRAIN_CRON",
            "at night",
            "a cron string like '0 2 * * *'",
        ),
        (
            ScheduleSettings,
            "CSFD_DRIFT_CRON",
            "0 0 31 4 *",
            "a cron string like '0 2 * * *'",
        ),
        (ClassificationSettings, "CSFD_FOLDS", "6", "a whole number from 1 to 5"),
        (
            ClassificationSettings,
            "CSFD_CLASSIFICATION_EPOCHS",
            "1.5",
            "a whole number of at least 1",
        ),
        (
            SegmentationSettings,
            "CSFD_SEGMENTATION_PATIENCE",
            "-1",
            "a whole number of at least 0",
        ),
        (SegmentationSettings, "CSFD_SEGMENTATION_INITIAL", "x", "builtin or none"),
        (PromotionSettings, "CSFD_PROMOTION_LOSS_MARGIN", "nan", "a number"),
        (
            PromotionSettings,
            "CSFD_PROMOTION_LATENCY_FACTOR",
            ".5",
            "a number of at least 1",
        ),
        (DiagnosticSettings, "CSFD_DEBUG", "perhaps", "1 or 0"),
    ],
)
def test_a_value_that_cannot_be_meant_is_told_in_one_sentence(
    group: type[Environment],
    variable: str,
    value: str,
    words: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(SettingsError) as caught:
        group.read()
    assert str(caught.value) == f"{variable} must be {words}. Received: {value}."


def test_nothing_is_read_at_import() -> None:
    code = "import csfd_core.settings"
    wrong = {**os.environ, "CSFD_PROFILE": "wrong", "CSFD_FOLDS": "-1"}
    assert (
        subprocess.run([sys.executable, "-c", code], env=wrong, check=False).returncode
        == 0
    )


def test_exported_settings_reach_a_child(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in VARIABLES:
        monkeypatch.setenv(variable, "")  # put back afterwards
    monkeypatch.chdir(tmp_path)
    Settings.read(store="place").export("home")
    ClassificationSettings.read(folds=3).export()
    names = ["CSFD_STORE", "CSFD_HOME", "CSFD_FOLDS", "CSFD_SOURCE"]
    code = f"import os; print(*(os.environ[name] for name in {names}))"
    child = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert child.stdout.split() == [f"{tmp_path}/place", str(tmp_path), "3"]


def test_every_setting_says_what_it_is_and_what_it_may_be() -> None:
    assert len(VARIABLES) == len(set(VARIABLES)) > 25
    for row in markdown_table(GROUPS).splitlines()[2:]:
        cells = [cell.strip() for cell in row.strip("|").split("|")]
        assert len(cells) == 4
        assert all(cells), row
        assert cells[-1].endswith("."), row


def test_the_documentation_has_the_table_of_the_model() -> None:
    """After a change: ``python -m csfd_core.settings_page`` prints the tables."""
    readme = (ROOT / "README.md").read_text()
    assert markdown_table([Settings, ScheduleSettings]) in readme
    assert markdown_table(GROUPS) in (ROOT / "docs" / "settings.md").read_text()


def test_variables_that_texts_name_are_settings() -> None:
    """A variable that was renamed must not live on in messages and pages."""
    own = {*VARIABLES, "CSFD_TEST_MATERIAL", "CSFD_TEST_INTERLEAVINGS"}  # of the tests
    for folder, ending in (("csfd_core", "py"), ("csfd_dagster", "py"), ("docs", "md")):
        for path in (ROOT / folder).rglob(f"*.{ending}"):
            named = set(re.findall(r"\bCSFD_[A-Z_]*[A-Z]\b", path.read_text()))
            assert named <= own, path


def readers(source: str) -> list[str]:
    """Return what a module asks the environment for; ``?`` if that is no literal."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute) and node.attr in ("environ", "getenv"):
            found.append("?")
    literals = re.findall(r"os\.(?:environ(?:\.\w+\(|\[)|getenv\()\"(\w+)\"", source)
    literals += re.findall(r"\"(\w+)\" not in os\.environ", source)
    return literals + found[len(literals) :]


def test_nothing_else_reads_the_settings() -> None:
    allowed = {"TF_CPP_MIN_LOG_LEVEL", "KERAS_BACKEND", "COLUMNS", "AWS_MAX_ATTEMPTS"}
    allowed |= {"MLFLOW_DISABLE_TELEMETRY", "DAGSTER_GRPC_SHUTDOWN_GRACE_PERIOD"}
    patient = ("SENSOR", "SCHEDULE")
    allowed |= {f"DAGSTER_{one}_GRPC_TIMEOUT_SECONDS" for one in patient}
    for folder in ("csfd_core", "csfd_dagster"):
        for path in (ROOT / folder).rglob("*.py"):
            # Dagster's own variable, by its constant's name.
            if path.parent.name != "settings" and path.name != "storage.py":
                assert set(readers(path.read_text())) <= allowed, path


@pytest.mark.parametrize(
    "planted",
    ['os.environ.get("CSFD_STORE")', 'os.environ["CSFD_X"]', "os.getenv(name)",
     "{**os.environ}"],
)  # fmt: skip
def test_a_planted_reader_is_found(planted: str) -> None:
    assert {"?", "CSFD_STORE", "CSFD_X"} & set(readers(f"import os\nx = {planted}"))
