"""Many studies: a second call goes on, Ctrl+C keeps what is done, none stops others."""

import json
import os
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from support.dicom_studies import STUDY_UID, write_study
from support.spots import known_mask, spot_ensemble
from typer.testing import CliRunner, Result

from csfd_core.classification.classifier_store import ClassifierStore
from csfd_core.classification.ensemble import Ensemble
from csfd_core.classification.general import GENERAL_FOLD, general_store
from csfd_core.cli.main import app
from csfd_core.cli.tally import duration
from csfd_core.errors import CsfdError, SettingsError, StoreError
from csfd_core.inference import reading
from csfd_core.inference.predict import PredictedStudy, predict_input
from csfd_core.inference.reading import Reading, ReadScan, ReadTask, read_folder
from csfd_core.ingest.outcomes import Outcome
from csfd_core.segmentation.bundle import builtin_location, read_bundle
from csfd_core.segmentation.predict import Prediction, VertebraPredictor
from csfd_core.store.locations import Location
from csfd_core.store.source import Source

UIDS = [f"{STUDY_UID}.{number}" for number in range(1, 4)]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    for uid in UIDS:
        write_study(tmp_path / "source", uid)
    return tmp_path / "source"


class Counting:
    """A segmentation that counts its studies, and may be stopped."""

    def __init__(self, stop_at: int = 0) -> None:
        self._known = known_mask()
        self.bundle = self._known.bundle
        self.step_mm = self._known.step_mm
        self.calls = 0
        self.stop_at = stop_at

    def predict(self, volume: Any) -> Prediction:
        self.calls += 1
        if self.calls == self.stop_at:
            raise KeyboardInterrupt
        return self._known.predict(volume)


def predict(
    source: Path, out: Path, ensemble: Ensemble | None = None, **options: Any
) -> tuple[list[PredictedStudy], int]:
    """Return what became of each study, and how many the networks have seen."""
    counting = Counting()
    found = predict_input(
        str(source),
        out,
        cast(VertebraPredictor, counting),
        ensemble or spot_ensemble(),
        print,
        Reading(),
        **{"again": False, **options},
    )
    return list(found), counting.calls


def actions(studies: list[PredictedStudy]) -> list[Outcome]:
    return [study.action for study in studies]


def test_a_second_call_makes_nothing_anew_and_tells_the_same(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    first, seen = predict(source, out)
    assert (actions(first), seen) == ([Outcome.PREDICTED] * 3, 3)
    before = {
        path: (path.stat().st_mtime_ns, path.read_bytes()) for path in out.iterdir()
    }
    monkeypatch.setattr("csfd_core.dicom.pixels.DecodedSlice.grey_levels", never)
    second, seen = predict(source, out)
    assert (actions(second), seen) == ([Outcome.UNCHANGED] * 3, 0)
    assert {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in out.iterdir()} == before
    for one, other in zip(first, second, strict=True):
        assert (one.name, one.number, one.total) == (other.name, other.number, 3)
        assert other.suspicious == one.suspicious
        assert one.unlike is not None
        assert other.unlike is not None
        assert other.unlike.to_json() == one.unlike.to_json()
        for level, told in other.probabilities.items():
            assert told == pytest.approx(one.probabilities[level])


def never(*_: object) -> None:
    raise AssertionError("nothing is to be decoded")


def another_pixel(source: Path, out: Path) -> dict[str, Any]:
    path = source / "train_images" / UIDS[1] / "7.dcm"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    return {}


def another_model(source: Path, out: Path) -> dict[str, Any]:
    ensemble = spot_ensemble()
    card = ensemble.cards[0].model_copy(update={"model_id": "another"})
    return {"ensemble": replace(ensemble, cards=[card])}


def another_version(source: Path, out: Path) -> dict[str, Any]:
    return {"ensemble": replace(spot_ensemble(), version=2)}


def damaged(source: Path, out: Path) -> dict[str, Any]:
    path = out / f"{UIDS[0]}.json"
    path.write_bytes(path.read_bytes()[:100])
    return {}


def no_page(source: Path, out: Path) -> dict[str, Any]:
    (out / f"{UIDS[2]}.html").unlink()
    return {}


def asked(source: Path, out: Path) -> dict[str, Any]:
    return {"again": True}


@pytest.mark.parametrize(
    ("change", "made"),
    [
        (another_pixel, [1]),
        (another_model, [0, 1, 2]),
        (another_version, [0, 1, 2]),
        (damaged, [0]),
        (no_page, [2]),
        (asked, [0, 1, 2]),
    ],
)
def test_what_would_be_another_result_is_made_again(
    change: Callable[[Path, Path], dict[str, Any]],
    made: list[int],
    source: Path,
    tmp_path: Path,
) -> None:
    out = tmp_path / "out"
    predict(source, out, endings=(".html",))
    for uid in UIDS:
        (out / f"{uid}.html").write_text("a page")
    options = change(source, out)
    found, seen = predict(source, out, endings=(".html",), **options)
    assert [i for i, s in enumerate(found) if s.action == Outcome.PREDICTED] == made
    assert seen == len(made)


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> "Command":
    return Command(monkeypatch, tmp_path / "out")


class Command:
    """A command, csfd predict, with stand-ins for its networks."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, out: Path) -> None:
        self.out = out
        self.name = "predict"
        self.segmentation = Counting()
        self.opened = 0
        for name, stand_in in (
            ("segmentation.model_store.open_model", self._open),
            ("segmentation.predict.VertebraPredictor", lambda _: self.segmentation),
            ("registry.serving.open_ensemble", lambda *_: spot_ensemble()),
            ("inference.reading.reading_ahead", lambda **_: nullcontext(Reading())),
        ):
            monkeypatch.setattr(f"csfd_core.{name}", stand_in)

    def _open(self, *_: object) -> None:
        self.opened += 1

    def run(self, source: Path, *options: str) -> Result:
        call = [self.name, str(source), "--out", str(self.out), *options]
        return CliRunner().invoke(app, call, env={"COLUMNS": "200"})


def test_ctrl_c_keeps_what_is_done_and_the_next_call_goes_on(
    command: Command, source: Path
) -> None:
    command.segmentation.stop_at = 2
    stopped = command.run(source)
    assert isinstance(stopped.exception, CsfdError)
    assert str(stopped.exception) == (
        f"Stopped after 1 of 3 studies. What is done is kept in {command.out}. The "
        "same command goes on from there."
    )
    assert [path.name for path in command.out.iterdir()] == [f"{UIDS[0]}.json"]
    command.segmentation = Counting()
    result = command.run(source)
    assert result.exit_code == 0
    assert command.segmentation.calls == 2
    assert f"[1 of 3] {UIDS[0]}: there already, by the same model" in result.output
    assert f"[2 of 3, 0 s left] {UIDS[1]}: done in" in result.output
    assert f"[3 of 3] {UIDS[2]}: done in" in result.output
    lines = " ".join(result.output.split())
    assert "2 studies predicted by spots" in lines
    assert "1 there already (--again makes them anew), 0 left out" in lines
    assert all(uid in lines.split("any", 1)[1] for uid in UIDS)  # the table has all
    command.segmentation = Counting()
    assert command.run(source, "--again").exit_code == 0
    assert command.segmentation.calls == 3


def test_masks_go_on_as_predictions_do(command: Command, source: Path) -> None:
    command.name = "segment"
    command.segmentation.stop_at = 3
    stopped = command.run(source)
    assert isinstance(stopped.exception, CsfdError)
    assert str(stopped.exception).endswith("The same command goes on from there.")
    another_pixel(source, command.out)
    (command.out / f"{UIDS[2]}.json").write_text("{}")  # as of something else
    command.segmentation = Counting()
    result = command.run(source)
    assert result.exit_code == 0
    assert command.segmentation.calls == 2
    assert f"[1 of 3] {UIDS[0]}: there already, by the same model" in result.output
    lines = " ".join(result.output.split())
    assert "2 studies segmented, 1 there already (--again makes them anew), 0" in lines
    (command.out / f"{UIDS[1]}.nii.gz").unlink()
    command.segmentation = Counting()
    command.run(source)
    assert command.segmentation.calls == 1
    assert (command.out / f"{UIDS[1]}.nii.gz").is_file()
    command.segmentation = Counting()
    assert command.run(source, "--again").exit_code == 0
    assert command.segmentation.calls == 3


@pytest.mark.slow
def test_of_500_studies_with_three_broken_ones_497_have_results(
    command: Command, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = {"1.2.100": no_geometry, "1.2.250": unreadable, "1.2.499": odd_grey}
    many = tmp_path / "many"
    for number in range(500):
        folder = many / "train_images" / f"1.2.{number}"
        folder.mkdir(parents=True)
        os.link(source / "train_images" / UIDS[0] / "1.dcm", folder / "1.dcm")
    task = ReadTask(Source(source).study(UIDS[0]) or pytest.fail("no study"))
    (one,) = (found.opened(task.memory) for found in read_folder(task))

    def read(task: ReadTask, **_: object) -> list[ReadScan]:
        assert one.scan is not None
        name = task.folder.name
        scan = replace(one.scan, study_uid=name)
        found = replace(one, scan=scan, name=name)
        return [broken.get(name, lambda same: same)(found)]

    monkeypatch.setattr(reading, "read_folder", read)
    result = command.run(many)
    told = str(result.exception)
    assert told == "2 studies could not be read; the others are done."
    assert len(list(command.out.glob("*.json"))) == 497
    assert not any((command.out / f"{name}.json").exists() for name in broken)
    left_out = [line for line in result.output.splitlines() if "left out. " in line]
    assert len(left_out) == 3
    for name, sentence in zip(
        ("1.2.100", "1.2.250", "1.2.499"),
        ("No geometry.", "It cannot be read: OSError.", "It cannot be judged: "),
        strict=True,
    ):
        (line,) = [line for line in left_out if f"{name}: " in line]
        assert sentence in line


def no_geometry(found: ReadScan) -> ReadScan:
    assert found.scan is not None
    return replace(found, scan=replace(found.scan, geometry=None), grey=None)


def unreadable(found: ReadScan) -> ReadScan:
    raise OSError("planted")


def odd_grey(found: ReadScan) -> ReadScan:
    return replace(found, grey=np.zeros((1, 2), dtype=np.uint8))  # no volume


def test_a_folder_that_cannot_be_written_is_told_before_anything_is_opened(
    command: Command, source: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("no folder")
    command.out = tmp_path / "file" / "out"
    result = command.run(source)
    assert isinstance(result.exception, SettingsError)
    assert str(result.exception).startswith(f"Cannot write into {command.out}: ")
    assert command.opened == 0


def test_a_store_of_a_newer_csfd_is_refused_but_for_the_general_model(
    command: Command, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = tmp_path / "store"
    store.mkdir()
    (store / "store.json").write_text('{"schema_version": 2, "profile": "demo"}')
    monkeypatch.setenv("CSFD_STORE", str(store))
    result = command.run(source)
    assert isinstance(result.exception, StoreError)
    assert "Has a newer csfd written it?" in str(result.exception)
    assert command.opened == 0
    assert command.run(source, "--model", "general").exit_code == 0


@pytest.mark.parametrize("kept", [0, 10, 0.5])
def test_weights_that_are_cut_off_are_told(kept: float, tmp_path: Path) -> None:
    general = general_store().of_fold("basic_cnn", GENERAL_FOLD)
    store = ClassifierStore(Location(tmp_path / "store"))
    copied = store.of_fold("basic_cnn", 0)
    bundle = Location(tmp_path / "bundle")
    for place, target in ((general, copied), (builtin_location(), bundle)):
        for entry in place.entries(""):
            content = place.read(entry.name)
            if entry.name == "weights.npz":
                content = content[: int(kept * len(content)) if kept < 1 else int(kept)]
            target.write(entry.name, content)
    with pytest.raises(StoreError, match="no whole file of weights: cut off"):
        store.read_weights("basic_cnn", 0)
    with pytest.raises(StoreError, match="no whole file of weights: cut off"):
        read_bundle(bundle)


@pytest.mark.parametrize(
    ("seconds", "told"), [(0.4, "0 s"), (89, "89 s"), (90, "2 min"), (5400, "1.5 h")]
)
def test_what_is_left_is_told_as_one_reads_it(seconds: float, told: str) -> None:
    assert duration(seconds) == told


def test_a_result_names_all_that_it_follows_from(source: Path, tmp_path: Path) -> None:
    predict(source, tmp_path / "out")
    note = json.loads((tmp_path / "out" / f"{UIDS[0]}.json").read_text())
    assert note["made_from"]["models"] == note["model_ids"]
    assert note["made_from"]["segmentation"] == note["segmentation"]["model"]
