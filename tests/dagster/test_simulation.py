"""Weeks of a department on tiny phantoms, through the real sensor and schedule."""

from pathlib import Path

import pandas as pd
import pytest
from support.drawn_crops import put_bright_classifiers
from support.drawn_masks import put_bone_masks

from csfd_core.classification.classifiers import CLASSIFIERS
from csfd_core.errors import SettingsError
from csfd_dagster.resources.classification import ClassificationResource
from csfd_dagster.resources.segmentation import SegmentationResource
from csfd_dagster.simulation import weeks as simulation
from csfd_dagster.simulation.plan import SimulationConfig

FAST = {
    "segmentation": SegmentationResource(epochs=1, steps_per_epoch=1),
    "classification": ClassificationResource(
        epochs=1, steps_per_epoch=2, weights="none"
    ),
}


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.usefixtures("cheap", "places")
@pytest.mark.filterwarnings("ignore:__array__ implementation")  # Keras and NumPy 2
@pytest.mark.filterwarnings("ignore::DeprecationWarning:mlflow")
@pytest.mark.filterwarnings("ignore::UserWarning:mlflow")
def test_six_weeks_hold_what_they_must(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    put_bright_classifiers(monkeypatch)  # who learns what, not how
    put_bone_masks(monkeypatch)
    monkeypatch.setattr(simulation, "default_workers", lambda count: 1)
    monkeypatch.setattr("csfd_dagster.sensors._LONG_LOOK_S", 0.0)  # so: every look
    monkeypatch.setenv("CSFD_RETRAIN_STUDIES", "20")  # put back afterwards
    monkeypatch.setenv("CSFD_PROFILE", "full")  # likewise: a simulation is a demo
    said: list[str] = []
    config = SimulationConfig(weeks=6, start=12, weekly=(3, 5), retrain=10, seed=1)
    root = tmp_path / "simulation"
    status = simulation.simulate(root, config, said.append, FAST)
    printed = capsys.readouterr().out
    assert status == 0, printed
    assert "FAILS" not in printed
    table = pd.read_csv(root / simulation.TABLE)
    assert table["week"].tolist() == list(range(7))
    assert table["converted"].sum() == table["arrived"].sum() - int(
        "broken" in table["events"].iloc[-1]
    )
    assert (table["quarantined"] == 0).sum() < 7
    assert table["events"].str.contains("all labels wrong").sum() == 1
    assert table["models"].iloc[0] == 1 + len(CLASSIFIERS)  # and the segmentation
    assert any("no training: 4 newly" in row for row in table["decision"])
    # The only study of fold 0 was withdrawn: the schedule asks, and nothing can follow.
    assert any("no study to stop by" in row for row in table["decision"])


def test_a_folder_that_holds_something_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "kept").write_text("mine")
    with pytest.raises(SettingsError, match="not empty"):
        simulation.simulate(tmp_path, SimulationConfig(), print)
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]
