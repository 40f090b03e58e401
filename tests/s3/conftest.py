"""One server for all S3 tests of a process, and a bucket of its own for each test."""

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.dicom_studies import (
    LABEL_HEADER,
    neck_mask,
    volume_affine_ras,
    write_mask,
    write_study,
)
from support.s3_bucket import Bucket
from support.s3_runs import STUDIES, convert, pointed_at
from support.seaweed import seaweed_server
from support.tcp_proxy import Proxy, tcp_proxy

_bucket_numbers = itertools.count()


@pytest.fixture(scope="session")
def server_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with seaweed_server(tmp_path_factory.mktemp("weed")) as url:
        yield url


@pytest.fixture
def bucket(server_url: str) -> Iterator[Bucket]:
    with pointed_at(server_url):
        bucket = Bucket.create(server_url, f"csfd-{next(_bucket_numbers)}")
        yield bucket
        bucket.close()


@pytest.fixture
def proxy(bucket: Bucket, server_url: str) -> Iterator[Proxy]:
    """Put a proxy between csfd and the server; ``bucket`` itself goes around it."""
    with tcp_proxy(server_url) as proxy, pointed_at(proxy.url):
        yield proxy


@pytest.fixture(scope="session")
def source_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two small studies in the RSNA layout, with labels; the first has a mask."""
    source = tmp_path_factory.mktemp("source")
    for study_uid in STUDIES:
        write_study(source, study_uid)
    write_mask(source, neck_mask(), volume_affine_ras(), STUDIES[0])
    (source / "train.csv").write_text(
        f"{LABEL_HEADER}{STUDIES[0]},1,0,1,0,0,0,0,0\n{STUDIES[1]},0,0,0,0,0,0,0,0\n"
    )
    return source


@pytest.fixture(scope="session")
def local_store(source_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a conversion on a disk makes of the studies."""
    store = tmp_path_factory.mktemp("store")
    convert(source_folder, store)
    return store


@pytest.fixture
def s3_source(bucket: Bucket, source_folder: Path) -> str:
    """The studies in the bucket."""
    bucket.upload(source_folder, "source")
    return bucket.url("source")
