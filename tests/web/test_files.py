"""The server of files shows reports and pictures, and nothing else of a store."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.file_server import ask, served

from csfd_core.store.locations import Location
from csfd_core.store.stores import Stores
from csfd_core.web.addresses import file_url

UID = "1.2.826.0.1.3680043.11"
JPEG = b"\xff\xd8 a montage"
PAGE = b"<!doctype html><title>report</title>"
HIDDEN = (
    "/slices/1.2.3.parquet",
    "/metadata/studies.parquet",
    "/withdrawn/1.2.3.json",
    "/reports",
    "/reports/",
    "/reports/eda",
    "/reports/eda/",
    "/reports/index.html",
    "/reports/eda/absent.html",
    "/reports/eda/notes.txt",
    "/reports/eda/.hidden.html",
    "/reports/eda/index.html.tmp-0123",
    "/reports/../predictions/1.2.3.json",
    "/reports/eda/../../predictions/1.2.3.json",
    "/reports/eda/%2e%2e/%2e%2e/predictions/1.2.3.json",
    "/reports/eda/..%2f..%2fpredictions/1.2.3.json",
    "/reports/eda/%5c..%5cindex.html",
    "/reports//etc/passwd.html",
    "/reports/%2fetc/hosts.html",
    "/pictures",
    f"/pictures/{UID}.jpg",
    "/pictures/slice_store/",
    "/pictures/slice_store/1.2..3.jpg",
    "/pictures/slice_store/01.2.jpg",
    f"/pictures/slice_store/deep/{UID}.jpg",
    f"/pictures/../pictures/slice_store/{UID}.jpg",
    f"/pictures/slice_store/{UID}.jpg%00.html",
    "//reports/eda/index.html",
)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Location:
    folder = tmp_path_factory.mktemp("served")
    (folder / "secret.html").write_bytes(b"secret")
    stores = Stores(Location(folder / "store"))
    stores.pictures.write("slice_store", UID, JPEG)
    stores.pictures.write_chart("metadata_table", "distributions", b"a chart")
    for path in (
        "reports/eda/index.html",
        "reports/eda/notes.txt",
        "reports/eda/.hidden.html",
        "reports/eda/index.html.tmp-0123",
        "reports/index.html",
        "slices/1.2.3.parquet",
        "metadata/studies.parquet",
        "withdrawn/1.2.3.json",
        "predictions/1.2.3.json",
    ):
        file = folder / "store" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(PAGE)
    stores.root.write("reports/eda/figures/labels.png", b"a figure")
    stores.root.write("reports/eda/tables/labels.csv", b"a,b\n")
    stores.root.write("reports/<b>/index.html", PAGE)  # no name that csfd gives
    (folder / "store" / "pictures" / "slice_store" / "01.2.jpg").write_bytes(JPEG)
    return stores.root


@pytest.fixture(scope="module")
def port(store: Location) -> Iterator[int]:
    with served(store) as port:
        yield port


@pytest.mark.parametrize(
    ("path", "kind", "content"),
    [
        (f"/pictures/slice_store/{UID}.jpg", "image/jpeg", JPEG),
        ("/pictures/metadata_table/distributions.png", "image/png", b"a chart"),
        ("/reports/eda/index.html", "text/html; charset=utf-8", PAGE),
        ("/reports/eda/figures/labels.png", "image/png", b"a figure"),
        ("/reports/eda/tables/labels.csv", "text/csv; charset=utf-8", b"a,b\n"),
    ],
)
def test_what_one_looks_at_is_served_and_kept_by_nobody(
    port: int, path: str, kind: str, content: bytes
) -> None:
    response, body = ask(port, path)
    assert (response.status, body) == (200, content)
    assert response.headers["Content-Type"] == kind
    assert response.headers["Cache-Control"] == "no-store"
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    policy = response.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "script-src" not in policy
    head, nothing = ask(port, path, "HEAD")
    assert (head.status, nothing) == (200, b"")
    assert int(head.headers["Content-Length"]) == len(content)


@pytest.mark.parametrize("path", HIDDEN)
def test_nothing_else_is_there(port: int, path: str) -> None:
    response, body = ask(port, path)
    assert response.status == 404
    assert body == b"Not Found"
    assert response.headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_nothing_can_be_written(port: int, method: str) -> None:
    response, _ = ask(port, f"/pictures/slice_store/{UID}.jpg", method)
    assert response.status == 405


def test_the_front_page_lists_the_reports_that_are_there(port: int) -> None:
    response, body = ask(port, "/")
    assert response.status == 200
    assert b'<a href="/reports/eda/index.html">eda</a>' in body
    assert b"<b>" not in body
    assert body.count(b"<a ") == 1


def test_a_page_from_elsewhere_cannot_read_it_by_another_name(port: int) -> None:
    path = f"/pictures/slice_store/{UID}.jpg"
    assert ask(port, path, host=f"localhost:{port}")[0].status == 200
    response, body = ask(port, path, host="evil.example")
    assert response.status == 400
    assert JPEG not in body


def test_a_store_that_cannot_be_read_is_told_of(tmp_path: Path) -> None:
    blocked = tmp_path / "store"
    blocked.write_bytes(b"a file where the folder should be")
    with served(Location(blocked)) as port:
        response, body = ask(port, "/reports/eda/index.html")
    assert response.status in (404, 502)
    assert b"Traceback" not in body


def test_the_address_of_a_file_is_that_of_the_server() -> None:
    assert file_url(3001) == "http://127.0.0.1:3001/"
    assert (
        file_url(3001, "pictures/a b.jpg") == "http://127.0.0.1:3001/pictures/a%20b.jpg"
    )
