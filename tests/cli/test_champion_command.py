"""``csfd champion`` as users see it."""

from collections.abc import Callable
from pathlib import Path

import pytest
from support.contenders import make_labels, write_classifier, write_store_manifest
from typer.testing import CliRunner

from csfd_core.cli.main import app
from csfd_core.errors import SettingsError
from csfd_core.registry import contest
from csfd_core.registry.champion import ChampionRegistry
from csfd_core.registry.decision import Condition, PromotionConfig
from csfd_core.registry.history import read_history, this_user
from csfd_core.runtime.tracking import RunIdentity, tracked_run
from csfd_core.store.locations import Location
from csfd_core.store.stores import Stores

LABELS = make_labels(40)


@pytest.fixture
def stores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stores:
    monkeypatch.setenv("CSFD_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    return Stores(Location(tmp_path / "store"))


@pytest.fixture
def two_versions(
    stores: Stores,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    start_mlflow: Callable[[Path], str],
) -> Stores:
    """Version 1 is champion, version 2 was refused."""
    fine = Condition(name="reproduction", is_met=True, sentence="It does.")
    monkeypatch.setattr(contest, "_of_reproduction", lambda *_: fine)
    write_store_manifest(stores, LABELS)
    uri = start_mlflow(tmp_path)
    identity = RunIdentity(asset="champion_model", code_version="1")
    for skill in (2.0, 0.3):
        write_classifier(stores, LABELS, skill)
        registry = ChampionRegistry(stores, uri)
        with tracked_run(uri, "classification", identity) as run:
            config = PromotionConfig(repeats=100)
            contest.hold_contest(registry, "basic_cnn", run, config, by="night")
    return stores


def csfd(*arguments: str) -> str:
    result = CliRunner().invoke(app, ["champion", *arguments])
    if result.exception is not None and result.exit_code != 2:
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


def test_show_tells_titles_scores_and_history(two_versions: Stores) -> None:
    lines = csfd("show").splitlines()
    assert lines[0] == "champion: version 1 (basic_cnn)"
    assert "challenger: version 2 (basic_cnn)" in lines
    assert any("competition_log_loss 0." in line for line in lines)
    assert any(line.startswith("  NOT MET: The challenger's comp") for line in lines)
    assert "  decided: Version 1 (basic_cnn) stays champion." in lines
    assert sum(" by night: " in line for line in lines) == 3


def test_change_by_hand_is_recorded_with_who_and_why(two_versions: Stores) -> None:
    told = csfd("promote", "2", "--reason", "Finds C7.", "--by", "Dr. A")
    assert "champion: 1 -> 2 basic_cnn, promote (by hand) by Dr. A: Finds C7." in told
    assert csfd("show").startswith("champion: version 2 (basic_cnn)")
    told = csfd("rollback", "--reason", "It does not.")
    assert "champion: 2 -> 1 basic_cnn, rollback (by hand)" in told
    last = read_history(two_versions.root)[-1]
    assert (last.by, last.reason) == (this_user(), "It does not.")
    aliases = [change.alias for change in read_history(two_versions.root)]
    assert aliases.count("champion") == 3


def test_store_without_versions_says_so(stores: Stores, tmp_path: Path) -> None:
    assert csfd("show").startswith("There is no champion yet.")
    with pytest.raises(SettingsError, match="no registered version yet"):
        csfd("rollback", "--reason", "why not")
    assert not (tmp_path / "mlflow.db").exists()


def test_reason_is_required(stores: Stores) -> None:
    result = CliRunner().invoke(app, ["champion", "promote", "2"])
    assert result.exit_code == 2
