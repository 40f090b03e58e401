"""What has to stay names a withdrawn study no more, and is found by its UID."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from support.lineage_store import (
    FIRST,
    NEW,
    REASON,
    SECOND,
    THIRD,
    freeze_champion,
)

from csfd_core.errors import SourceError
from csfd_core.lineage.back import WITHDRAWN, trace_prediction
from csfd_core.lineage.forward import CLASSIFIER, SEGMENTATION, VERSION, trace_usage
from csfd_core.lineage.mlflow_records import RecordedRuns
from csfd_core.lineage.redaction import MlflowRecords
from csfd_core.lineage.withdrawal import withdraw
from csfd_core.registry.frozen import damages, frozen_digests
from csfd_core.runtime.tracking import RunIdentity, tracked_run
from csfd_core.store.locations import Location
from csfd_core.store.redaction import Redaction, stand_in_of
from csfd_core.store.stores import Stores


def test_models_are_found_by_a_uid_that_their_cards_name_no_more(
    stores: Stores, folder: Path
) -> None:
    recorded = RecordedRuns(stores, f"sqlite:///{folder}/none.db")
    before = trace_usage(stores, FIRST, recorded)
    withdraw(stores, FIRST, REASON, "tester")
    after = trace_usage(stores, FIRST, recorded)
    for kind in (SEGMENTATION, CLASSIFIER, VERSION):
        assert after.of_kind(kind) == before.of_kind(kind) != []
    found = trace_prediction(stores, NEW, recorded)
    seen = [one for member in found.members for one in member.training]
    assert {one.study_uid for one in seen} == {SECOND, THIRD, stand_in_of(FIRST)}
    gone = [one for one in seen if one.study_uid == stand_in_of(FIRST)]
    assert {one.standing for one in gone} == {WITHDRAWN}


def test_the_same_ensemble_is_not_frozen_twice(stores: Stores) -> None:
    """Its folds and its frozen copy were changed alike."""
    withdraw(stores, FIRST, REASON, "tester")
    (digest,) = frozen_digests(stores)
    assert freeze_champion(stores).digest == digest
    assert frozen_digests(stores) == [digest]


@pytest.mark.parametrize("cut_after", range(3))
def test_a_frozen_version_that_was_cut_off_is_put_right(
    stores: Stores, cut_after: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = Location.write
    calls = 0

    def write(self: Location, path: str, content: bytes) -> None:
        nonlocal calls
        if "models/champion" in str(self):
            calls += 1
            if calls > cut_after:
                raise SourceError("planted: the process died here")
        written(self, path, content)

    with monkeypatch.context() as patch:
        patch.setattr(Location, "write", write)
        with pytest.raises(SourceError, match="planted"):
            withdraw(stores, FIRST, REASON, "tester")
    withdraw(stores, FIRST, REASON, "tester")
    (digest,) = frozen_digests(stores)
    assert damages(stores, digest) == []
    assert f'"{FIRST}"'.encode() not in b"".join(
        stores.root.read(file.path) for file in stores.root.find("models")[0]
    )


def test_mlflow_and_other_databases_name_it_no_more(
    folder: Path, start_mlflow: Callable[[Path], str]
) -> None:
    """Its UID begins as another's, and stands in tags, parameters and artifacts."""
    from mlflow import MlflowClient

    (folder / "mlflow").mkdir()
    uri = start_mlflow(folder / "mlflow")
    identity = RunIdentity(asset="comparison_report", code_version="1")
    pages = {"report/index.html": b"a page", "report/figure.png": b"a picture"}
    films = {"film/plain.mp4": b"a film", "film/preview.webp": b"a small one"}
    with tracked_run(uri, "classification", identity) as report:
        report.log_files(pages)
    with tracked_run(uri, "eda", identity) as film:
        film.log_files(films)  # as csfd before 0.3 did
    with tracked_run(uri, "classification", identity) as training:
        training.log_params({"first": FIRST, "new": NEW})
        card = json.dumps({FIRST: 1, NEW: 2}).encode()
        training.log_files({"card.json": card, "overlays/1.png": b"a picture"})
    with tracked_run(uri, "classification", identity) as other:
        other.log_files({"overlays/1.png": b"another picture"})
    assert list(MlflowRecords(uri).forget(Redaction(FIRST))) == []
    client = MlflowClient(uri)
    assert client.list_artifacts(report.run_id, "report") == []
    assert client.list_artifacts(film.run_id, "film") == []
    params = client.get_run(training.run_id).data.params
    assert params == {"first": stand_in_of(FIRST), "new": NEW}
    told = client.download_artifacts(training.run_id, "card.json")
    assert json.loads(Path(told).read_text()) == {stand_in_of(FIRST): 1, NEW: 2}
    assert client.list_artifacts(training.run_id, "overlays") == []
    assert len(client.list_artifacts(other.run_id, "overlays")) == 1
    raw = (folder / "mlflow" / "mlflow.db").read_bytes()
    assert not re.search(FIRST.encode() + rb"(?![0-9])", raw)
    assert NEW.encode() in raw


def test_a_server_of_mlflow_is_told() -> None:
    (told,) = MlflowRecords("http://user:secret@host:5000").forget(Redaction(FIRST))
    assert "mlflow gc" in told
    assert "secret" not in told
