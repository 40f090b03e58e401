"""One uploaded study through the real graph: with the warm predictor and without it."""

import json
import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from support.coarse import coarse_phantoms
from support.instances import small_instance
from support.sensing import QUIET
from support.uploaded import Asking, accept_study, open_page, row_of

from csfd_core.inference.predict import read_prediction
from csfd_core.inference.stored_heat import read_heats
from csfd_core.phantom.config import PhantomConfig
from csfd_core.phantom.source import write_phantom_source
from csfd_core.runtime.executors import InlineExecutor
from csfd_core.segmentation.model_store import UNSEEN
from csfd_core.store.locations import Location
from csfd_core.store.stores import Stores
from csfd_dagster.definitions import build_defs
from csfd_dagster.runs import give_way
from csfd_dagster.uploads import UPLOADS

PATIENCE_S = 200
STEPS = (
    "study_headers",
    "slice_store",
    "vertebra_masks",
    "vertebra_crops",
    "study_predictions",
)
# Runs the job in a process that says whether it has imported TensorFlow.
RUN = """
import sys
import dagster as dg
from csfd_dagster.definitions import build_defs
with dg.DagsterInstance.get() as instance:
    result = build_defs().resolve_job_def("arrival").execute_in_process(
        instance=instance, partition_key=sys.argv[1], raise_on_error=False,
        run_config={"loggers": {"console": {"config": {"log_level": "ERROR"}}}},
        tags={"csfd/asked_by": "uploads"},
    )
sys.exit(("tensorflow" in sys.modules) + 2 * (not result.success))
"""


@pytest.fixture
def inbox(places: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A coarse phantom in the inbox, without labels; its UID."""
    monkeypatch.setenv("CSFD_WEB_DATABASE", f"sqlite:///{places}/web.db")
    coarse_phantoms(monkeypatch)
    one = PhantomConfig(studies=1, seed=3, masked_share=0, compressed_share=0)
    (study,) = write_phantom_source(places / "inbox", one, executor=InlineExecutor())
    for table in (places / "inbox").glob("train*.csv"):
        table.unlink()
    return study.study_uid


@contextmanager
def predictor(places: Path, patch: pytest.MonkeyPatch) -> Iterator[None]:
    """Run the predictor on the store, as ``csfd serve`` does."""
    path = places / "warm.sock"
    patch.setenv("CSFD_PREDICTOR_SOCKET", str(path))
    process = subprocess.Popen([sys.executable, "-m", "csfd_core.inference.warm"])
    try:
        end = time.monotonic() + PATIENCE_S
        while not path.exists():
            assert process.poll() is None
            assert time.monotonic() < end
            time.sleep(0.1)
        yield
    finally:
        process.kill()
        process.wait()


def without_times(note: dict[str, Any] | None) -> str:
    assert note is not None
    return json.dumps({k: v for k, v in note.items() if k != "seconds"})


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_fresh_store_predicts_an_upload_and_the_warm_process_says_the_same(
    places: Path, inbox: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    said, masks, heats = [], [], []
    for number, is_warm in enumerate((True, False)):
        store = Stores(Location(places / f"store{number}"))
        monkeypatch.setenv("CSFD_STORE", store.root.url)
        home = places / f"home{number}"
        home.mkdir()
        monkeypatch.setenv("DAGSTER_HOME", str(home))
        with small_instance(home) as instance:
            instance.add_dynamic_partitions("studies", [inbox])
        call = [sys.executable, "-W", "ignore", "-c", RUN, inbox]
        if is_warm:
            with predictor(places, monkeypatch):
                status = subprocess.run(call, check=False).returncode
            # It is dead now, and the variable still set.
        else:
            status = subprocess.run(call, check=False).returncode
        assert status == (0 if is_warm else 1)  # 1: imported TensorFlow itself
        said.append(without_times(read_prediction(store, inbox)))
        masks.append(store.predicted_masks.read_volume(inbox).tobytes())
        heats.append(store.root.read(f"heats/{inbox}.npz"))
        note = store.predicted_masks.read_note(inbox)
        assert note is not None
        assert (note.model_id[:7], note.standing) == ("general", UNSEEN)
    assert said[0] == said[1]
    assert masks[0] == masks[1]
    assert heats[0] == heats[1]
    prediction = json.loads(said[0])
    assert prediction["model"] == "general"
    judged = [name for name, place in prediction["evidence"].items() if place]
    assert judged
    assert set(judged) <= {one.level for one in read_heats(store, inbox)}


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_upload_is_done_once_and_the_conditions_ask_for_nothing_of_it(
    places: Path, inbox: str
) -> None:
    database = open_page()
    accept_study(database, inbox)
    with small_instance(places / "home") as instance:
        asking = Asking(instance, str(places / "store"))
        (request,) = asking.tick().run_requests or ()
        defs = build_defs()
        result = defs.resolve_job_def("arrival").execute_in_process(
            instance=instance,
            partition_key=inbox,
            tags=request.tags,
            run_config=QUIET,
        )
        assert result.success
        asking.tick()
        assert row_of(database, inbox).state == "done"
        made = {
            event.asset_key.to_user_string()
            for event in result.get_asset_materialization_events()
        }
        assert made == set(STEPS)
        evaluated = dg.evaluate_automation_conditions(
            defs, instance, asset_selection=dg.AssetSelection.all()
        )
        asked = {
            key.to_user_string()
            for key in defs.resolve_asset_graph().materializable_asset_keys
            if evaluated.get_requested_partitions(key)
        }
        assert "mask_store" in asked  # which follows, as for every study
        assert not asked & set(STEPS)


def _niceness(tags: dict[str, str], told: Any) -> None:
    give_way(dg.DagsterRun(job_name="job", tags=tags))
    told.put(os.getpriority(os.PRIO_PROCESS, 0))


@pytest.mark.parametrize(
    ("asked_by", "gives_way"), [("conditions", True), (UPLOADS, False)]
)
def test_what_nobody_waits_for_gives_way(asked_by: str, gives_way: bool) -> None:
    before = os.getpriority(os.PRIO_PROCESS, 0)
    context = multiprocessing.get_context("fork")
    told = context.Queue()
    process = context.Process(
        target=_niceness, args=({"csfd/asked_by": asked_by}, told)
    )
    process.start()
    found = told.get(timeout=30)
    process.join()
    assert found == (max(before, 10) if gives_way else before)
    give_way(dg.DagsterRun(job_name="job", tags={"csfd/asked_by": asked_by}))
    assert os.getpriority(os.PRIO_PROCESS, 0) == before
