"""Source and store on a real S3 server; botocore and the local result are the judge."""

import io
import json
import time
from pathlib import Path

import pandas as pd
import pytest
from support.coarse import cheap_models, plain_figures, untraced_networks
from support.command import csfd, csfd_here
from support.drawn_masks import put_bone_masks
from support.s3_bucket import Bucket
from support.s3_runs import STUDIES, convert, rows_of

from csfd_core.ingest.outcomes import Outcome
from csfd_core.runtime.executors import open_executor
from csfd_core.store.paths import LABEL_VERSIONS
from csfd_dagster import commands
from csfd_dagster.resources.segmentation import SegmentationResource

pytestmark = pytest.mark.slow

CLOCK_TICK_S = 1.1  # S3 tells when an object was written in whole seconds
STUDIES_TABLE = "metadata/studies.parquet"


def assert_equal_stores(bucket: Bucket, prefix: str, local: Path) -> None:
    """Compare names, and every byte of the slices and masks, with a local store."""
    names = {str(p.relative_to(local)) for p in local.rglob("*.parquet")}
    remote = {key.removeprefix(f"{prefix}/") for key in bucket.objects(prefix)}
    dated = [{n for n in each if LABEL_VERSIONS in n} for each in (names, remote)]
    assert len(dated[0]) == len(dated[1])  # named by when they were written
    assert remote - {STUDIES_TABLE} - dated[1] == names - {STUDIES_TABLE} - dated[0]
    pictures = [name for name in names if name.startswith(("slices/", "masks/"))]
    assert len(pictures) == 3
    for name in pictures:
        there = rows_of(bucket.get(f"{prefix}/{name}"))
        assert there.equals(rows_of((local / name).read_bytes())), name


def studies_table(raw: bytes) -> pd.DataFrame:
    return rows_of(raw).to_pandas().drop(columns="content_hash")


def test_convert_command_gives_what_it_gives_locally(
    bucket: Bucket, s3_source: str, source_folder: Path, tmp_path: Path
) -> None:
    done = csfd("convert", s3_source, bucket.url("store"), "--workers", "2")
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert "Warning" not in done.stderr
    assert "2 studies written, 0 unchanged, 0 quarantined, 0 failed" in done.stdout

    local = tmp_path / "store"
    assert csfd_here("convert", source_folder, local).returncode == 0
    assert_equal_stores(bucket, "store", local)
    pd.testing.assert_frame_equal(
        studies_table(bucket.get(f"store/{STUDIES_TABLE}")),
        studies_table((local / STUDIES_TABLE).read_bytes()),
    )


def test_inspect_command_reports_what_it_reports_locally(
    s3_source: str, source_folder: Path, tmp_path: Path
) -> None:
    reports = []
    for run, place in ((csfd, s3_source), (csfd_here, source_folder)):
        file = tmp_path / "report.json"
        done = run("inspect", place, "--json", file)
        assert done.returncode == 0, done.stderr
        assert "Traceback" not in done.stderr
        report = json.loads(file.read_text())
        assert [study["study_uid"] for study in report["studies"]] == list(STUDIES)
        for study in report["studies"]:
            del study["content_hash"]
        reports.append(report)
    assert reports[0] == reports[1]


def test_process_pool_gives_what_one_process_gives_locally(
    bucket: Bucket, s3_source: str, local_store: Path
) -> None:
    with open_executor(2) as executor:
        outcomes = convert(s3_source, bucket.url("store"), executor)
    assert {outcome.action for outcome in outcomes.values()} == {Outcome.WRITTEN}
    assert_equal_stores(bucket, "store", local_store)


def test_rerun_writes_nothing(bucket: Bucket, s3_source: str) -> None:
    convert(s3_source, bucket.url("store"))
    before = bucket.objects()
    time.sleep(CLOCK_TICK_S)
    outcomes = convert(s3_source, bucket.url("store"))
    assert {outcome.action for outcome in outcomes.values()} == {Outcome.UNCHANGED}
    assert bucket.objects() == before


def test_changed_object_redoes_its_study_only(bucket: Bucket, s3_source: str) -> None:
    convert(s3_source, bucket.url("store"))
    before = bucket.objects("store")
    key = f"source/train_images/{STUDIES[1]}/7.dcm"
    raw = bytearray(bucket.get(key))
    raw[-3000:-2000] = bytes(1000)  # other pixels, the same size
    time.sleep(CLOCK_TICK_S)
    bucket.put(key, bytes(raw))

    outcomes = convert(s3_source, bucket.url("store"))
    assert [outcomes[uid].action for uid in STUDIES] == [
        Outcome.UNCHANGED,
        Outcome.WRITTEN,
    ]
    after = bucket.objects("store")
    assert after.keys() == before.keys()
    assert {key for key in after if after[key] != before[key]} == {
        f"store/slices/{STUDIES[1]}.parquet",
        f"store/metadata/slices/{STUDIES[1]}.parquet",
    }


@pytest.mark.slow
def test_csfd_run_ingests_through_dagster(
    bucket: Bucket,
    s3_source: str,
    local_store: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    monkeypatch.setenv("CSFD_SOURCE", s3_source)
    monkeypatch.setenv("CSFD_INBOX", bucket.url("inbox"))
    monkeypatch.setenv("CSFD_STORE", bucket.url("store"))
    cheap_models(monkeypatch)
    put_bone_masks(monkeypatch)
    plain_figures(monkeypatch)
    # As ``csfd run`` does, but for one step of training instead of minutes.
    brief = SegmentationResource(epochs=1, steps_per_epoch=1)
    with untraced_networks():
        commands.run_graph({"segmentation": brief})
    stored = {key for key in bucket.objects("store") if "/slices/" in key}
    assert {f"store/slices/{uid}.parquet" for uid in STUDIES} <= stored
    for uid in STUDIES:
        name = f"slices/{uid}.parquet"
        there = rows_of(bucket.get(f"store/{name}"))
        assert there.equals(rows_of((local_store / name).read_bytes()))
    table = pd.read_parquet(io.BytesIO(bucket.get(f"store/{STUDIES_TABLE}")))
    assert table["study_uid"].tolist() == list(STUDIES)
    assert table["C2"].tolist() == [1, 0]
