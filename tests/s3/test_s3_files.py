"""Reports and pictures of a store on S3 are shown like those of a folder."""

import pytest
from s3fs import S3FileSystem
from support.file_server import ask, served
from support.s3_bucket import Bucket

from csfd_core.errors import SourceError
from csfd_core.store.locations import Location
from csfd_core.store.stores import Stores

UID = "1.2.826.0.1.3680043.11"


def test_a_picture_and_a_report_of_a_bucket_are_served(bucket: Bucket) -> None:
    stores = Stores(Location(bucket.url("store")))
    path = stores.pictures.write("slice_store", UID, b"a montage")
    stores.root.write("reports/eda/index.html", b"a report")
    with served(stores.root) as port:
        assert ask(port, f"/{path}")[1] == b"a montage"
        assert ask(port, "/reports/eda/index.html")[1] == b"a report"
        assert b">eda</a>" in ask(port, "/")[1]
        assert ask(port, f"/pictures/mask_store/{UID}.jpg")[0].status == 404
    assert stores.pictures.paths_of(UID) == [path]


def test_absent_file_of_a_bucket_is_none_and_a_refusal_is_told(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Location(bucket.url("store"))
    store.write("file", b"content")
    assert store.read_if_there("file") == b"content"
    assert store.read_if_there("absent") is None
    assert Location("s3://csfd-no-such-bucket/store").read_if_there("file") is None
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    S3FileSystem.clear_instance_cache()
    with pytest.raises(SourceError, match="AWS_"):
        Location(bucket.url("store")).read_if_there("absent")
