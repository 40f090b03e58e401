"""Reports and pictures of a store on S3 are shown like those of a folder."""

from support.file_server import ask, served
from support.s3_bucket import Bucket

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
