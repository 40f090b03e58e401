"""A bucket seen through botocore: what the tests compare csfd's own view with."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from botocore.session import Session


@dataclass(slots=True)
class Bucket:
    """One bucket on the server."""

    name: str
    client: Any  # botocore makes the class of a client at run time

    @classmethod
    def create(cls, endpoint: str, name: str) -> "Bucket":
        client = Session().create_client(
            "s3", region_name="us-east-1", endpoint_url=endpoint
        )
        client.create_bucket(Bucket=name)
        return cls(name, client)

    def url(self, key: str) -> str:
        return f"s3://{self.name}/{key}"

    def upload(self, folder: Path, prefix: str) -> None:
        """Put every file below a folder."""
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                self.put(f"{prefix}/{path.relative_to(folder)}", path.read_bytes())

    def put(self, key: str, content: bytes) -> None:
        self.client.put_object(Bucket=self.name, Key=key, Body=content)

    def get(self, key: str) -> bytes:
        answer = self.client.get_object(Bucket=self.name, Key=key)
        with answer["Body"] as body:
            return bytes(body.read())

    def objects(self, prefix: str = "") -> dict[str, tuple[str, str]]:
        """Return (ETag, time of the last change) of each object by its key."""
        pages = self.client.get_paginator("list_objects_v2").paginate(
            Bucket=self.name, Prefix=prefix
        )
        return {
            item["Key"]: (item["ETag"], item["LastModified"].isoformat())
            for page in pages
            for item in page.get("Contents", [])
        }

    def unfinished_uploads(self) -> list[str]:
        """Return the keys of multipart uploads that were begun and not completed."""
        answer = self.client.list_multipart_uploads(Bucket=self.name)
        return [upload["Key"] for upload in answer.get("Uploads", [])]

    def close(self) -> None:
        self.client.close()
