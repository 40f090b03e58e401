"""What happens when the network, the settings or the bucket are at fault."""

import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from botocore.retries.standard import ExponentialBackoff
from support.command import csfd, csfd_here
from support.dicom_studies import neck_hounsfield, write_study
from support.s3_bucket import Bucket
from support.s3_runs import STUDIES, convert, pointed_at, rows_of
from support.tcp_proxy import Cuts, Proxy

from csfd_core.errors import SourceError
from csfd_core.ingest.convert import StudyTask, convert_study, run_studies
from csfd_core.ingest.inspect import inspect_folders
from csfd_core.ingest.outcomes import Outcome
from csfd_core.runtime.executors import InlineExecutor
from csfd_core.store.locations import Location
from csfd_core.store.source import Source
from csfd_core.store.stores import Stores
from csfd_core.text import safe_name
from deploy.demo.ports import free_ports

pytestmark = pytest.mark.slow

FOREVER = 10_000
MULTIPART_BYTES = 101 * 2**20  # s3fs sends more than 100 MiB in parts
HEADER_BYTES = 80 * 1024  # of a slice file: what is read of it, and HTTP around it
AWAY_LIMIT_S = 40.0  # waits of at most 1, 2, 4 and 8 s, and the start of Python


@pytest.mark.parametrize("after_bytes", [0, 2_000, 40_000])
def test_dropped_reads_are_tried_again(
    after_bytes: int, s3_source: str, proxy: Proxy, local_store: Path, tmp_path: Path
) -> None:
    proxy.cuts = Cuts("down", after_bytes, count=3)
    outcomes = convert(s3_source, tmp_path)
    assert {outcome.action for outcome in outcomes.values()} == {Outcome.WRITTEN}
    assert proxy.made_cuts == 3
    for uid in STUDIES:
        name = f"slices/{uid}.parquet"
        expected = rows_of((local_store / name).read_bytes())
        assert rows_of((tmp_path / name).read_bytes()).equals(expected)


@pytest.mark.parametrize("after_bytes", [0, 20_000])
def test_dropped_writes_are_tried_again(
    after_bytes: int,
    bucket: Bucket,
    source_folder: Path,
    proxy: Proxy,
    local_store: Path,
) -> None:
    proxy.cuts = Cuts("up", after_bytes, count=3)
    outcomes = convert(source_folder, bucket.url("store"))
    assert {outcome.action for outcome in outcomes.values()} == {Outcome.WRITTEN}
    assert proxy.made_cuts == 3
    for uid in STUDIES:
        name = f"slices/{uid}.parquet"
        expected = (local_store / name).read_bytes()
        assert bucket.get(f"store/{name}") == expected


def test_interrupted_write_leaves_what_was_there(
    bucket: Bucket, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    # All attempts fail here; how long is waited between them is not the question.
    monkeypatch.setattr(ExponentialBackoff, "_BASE", 0.1)
    store = Location(bucket.url("store"))
    store.write("old", b"old content")
    proxy.cuts = Cuts("up", after_bytes=100_000, count=FOREVER)
    for name in ("old", "new"):
        shown = re.escape(safe_name(name))
        with pytest.raises(SourceError, match=f"Cannot access s3://.*/{shown}: "):
            store.write(name, bytes(300_000))
    assert proxy.made_cuts >= 2
    assert list(bucket.objects("store")) == ["store/old"]
    assert bucket.get("store/old") == b"old content"
    assert [entry.path for entry in store.find()[0]] == ["old"]


@pytest.mark.parametrize("size", [1_000_000, MULTIPART_BYTES])
def test_killed_writer_leaves_nothing(size: int, bucket: Bucket, proxy: Proxy) -> None:
    proxy.stall_after_bytes = 500_000
    script = (
        "from csfd_core.store.locations import Location\n"
        f"Location('{bucket.url('store')}').write('new', bytes({size}))"
    )
    with subprocess.Popen([sys.executable, "-c", script]) as writer:
        assert proxy.stalled.wait(timeout=60)
        assert writer.poll() is None
        writer.kill()
    proxy.lose.set()
    time.sleep(0.5)  # the server sees that the connection is gone
    assert not bucket.objects()
    assert Location(bucket.url("store")).find() == ([], [])


def test_study_that_changes_on_the_way_does_not_stop_the_others(
    bucket: Bucket, s3_source: str, tmp_path: Path
) -> None:
    stores = Stores(Location(tmp_path))
    tasks = [StudyTask(folder, stores) for folder in Source(s3_source).studies()]
    gone = f"source/train_images/{STUDIES[0]}/3.dcm"
    bucket.client.delete_object(Bucket=bucket.name, Key=gone)
    outcomes = {
        outcome.study_uid: outcome
        for outcome in run_studies(convert_study, tasks, InlineExecutor())
    }
    assert [outcomes[uid].action for uid in STUDIES] == [
        Outcome.FAILED,
        Outcome.WRITTEN,
    ]
    assert "Cannot access s3://" in outcomes[STUDIES[0]].message


def test_server_that_is_away_is_one_clear_line_and_status_1(tmp_path: Path) -> None:
    url = f"http://127.0.0.1:{free_ports(1)[0]}"
    start = time.monotonic()
    with pointed_at(url):
        done = csfd("convert", "s3://csfd-away", tmp_path)
    assert time.monotonic() - start < AWAY_LIMIT_S
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "Cannot access s3://csfd-away: " in done.stderr
    assert f'Could not connect to the endpoint URL: "{url}' in done.stderr


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("s3://csfd-no-such-bucket", "There is no source at"),
        ("s3://csfd-no-such-bucket/source", "There is no source at"),
        ("s3://{bucket}/absent", "There is no source at"),
    ],
)
def test_absent_source_is_one_clear_line_and_status_1(
    bucket: Bucket, place: str, message: str
) -> None:
    done = csfd_here("inspect", place.format(bucket=bucket.name))
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert message in done.stderr


def test_absent_bucket_of_the_store_is_a_clear_failure(
    bucket: Bucket, source_folder: Path
) -> None:
    done = csfd_here("convert", source_folder, "s3://csfd-no-such-bucket/store")
    assert done.returncode == 1
    assert "Cannot access s3://csfd-no-such-bucket/store" in done.stderr


def test_wrong_credentials_are_one_clear_line_and_status_1(
    s3_source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    done = csfd("inspect", s3_source)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "AWS_* variables" in done.stderr


def test_inspection_reads_the_beginnings_of_most_uncompressed_slices(
    bucket: Bucket, proxy: Proxy, tmp_path: Path
) -> None:
    write_study(tmp_path, hounsfield=neck_hounsfield(slices=20, size=512))
    bucket.upload(tmp_path, "source")
    source = Source(bucket.url("source"))
    folders = source.studies()
    assert folders[0].size_bytes > 20 * 512 * 512 * 2
    before = proxy.bytes_down
    (studies,) = inspect_folders(folders, InlineExecutor())
    assert [str(study.status) for study in studies] == ["good"]
    looked_at = 3 * 512 * 512 * 2  # whole slices, for whether they are in HU
    assert proxy.bytes_down - before < 20 * HEADER_BYTES + looked_at
