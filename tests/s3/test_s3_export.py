"""An export into a bucket holds what one into a folder holds."""

from pathlib import Path

import pytest
from support.command import csfd_here
from support.s3_bucket import Bucket

pytestmark = pytest.mark.slow


def test_an_export_into_a_bucket_is_that_of_a_folder(
    bucket: Bucket, source_folder: Path, local_store: Path, tmp_path: Path
) -> None:
    places = ("--source", source_folder, "--store", local_store)
    for out in (tmp_path / "out", bucket.url("out")):
        told = csfd_here("export", out, "--all", *places)
        assert told.returncode == 0, told.stderr
        again = csfd_here("export", out, "--all", *places)
        assert ": 0 written, 2 as before;" in again.stdout
    files = [p for p in (tmp_path / "out").rglob("*") if p.is_file()]
    names = {str(path.relative_to(tmp_path / "out")) for path in files}
    assert {key.removeprefix("out/") for key in bucket.objects("out")} == names
    for name in names:
        assert bucket.get(f"out/{name}") == (tmp_path / "out" / name).read_bytes()
