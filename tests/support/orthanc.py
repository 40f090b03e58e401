"""Orthanc, the archive of others: started on free ports, stopped afterwards."""

import json
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest

from support.ports import free_port

ORTHANC = shutil.which("Orthanc") or "/usr/sbin/Orthanc"
PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
NEEDS_ORTHANC = pytest.mark.skipif(
    not Path(ORTHANC).exists() or not PLUGIN.exists(),
    reason="needs Orthanc and its DICOMweb plugin",
)
_MOST_S: Final = 60.0


@dataclass
class Orthanc:
    """An archive that runs.

    Attributes:
        http_port: Of its REST API and DICOMweb.
        dicom_port: Of its DICOM node.
        folder: Where all that it keeps lies.
    """

    http_port: int
    dicom_port: int
    folder: Path
    ae_title: str = "ARCHIVE"
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.http_port}"

    def ask(
        self, path: str, body: bytes | None = None, kind: str = "application/json"
    ) -> Any:
        """Return what it answers: JSON, or bytes of a file."""
        request = urllib.request.Request(
            f"{self.url}{path}", body, {"Content-Type": kind, **self.headers}
        )
        with urllib.request.urlopen(request, timeout=30) as response:
            content = response.read()
            is_json = "json" in (response.headers.get("Content-Type") or "")
        return json.loads(content) if is_json and content else content

    def put(self, path: str, body: Any) -> None:
        """Change a setting while it runs."""
        content = json.dumps(body).encode()
        kind = {"Content-Type": "application/json", **self.headers}
        request = urllib.request.Request(
            f"{self.url}{path}", content, kind, method="PUT"
        )
        urllib.request.urlopen(request, timeout=30).close()

    def add(self, file: bytes) -> None:
        """Let it keep a file."""
        self.ask("/instances", file, "application/dicom")

    def send_study(self, orthanc_id: str, peer: str = "csfd") -> Any:
        """Let it send a study by C-STORE."""
        body = json.dumps({"Resources": [orthanc_id], "Synchronous": True})
        return self.ask(f"/modalities/{peer}/store", body.encode())

    def instances(self) -> list[bytes]:
        """Return all files that it keeps."""
        return [
            self.ask(f"/instances/{one}/file") for one in sorted(self.ask("/instances"))
        ]


@contextmanager
def orthanc(
    folder: Path, *, node_port: int = 0, node_title: str = "CSFD"
) -> Iterator[Orthanc]:
    """Start an archive that knows a DICOM node, and yield it when it answers.

    Args:
        folder: Where everything of it lies.
        node_port: Of the node that it may send to.
        node_title: What it calls that node.
    """
    running = Orthanc(free_port(), free_port(), folder)
    folder.mkdir(parents=True, exist_ok=True)
    node = {
        "AET": node_title,
        "Host": "127.0.0.1",
        "Port": node_port or free_port(),
        "AllowStorageCommitment": True,
    }
    settings = {
        "Name": "archive",
        "StorageDirectory": str(folder / "files"),
        "IndexDirectory": str(folder / "index"),
        "DicomAet": running.ae_title,
        "DicomPort": running.dicom_port,
        "HttpPort": running.http_port,
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": False,
        "DicomModalities": {"csfd": node},
        "DicomAlwaysAllowEcho": True,
        "DicomCheckCalledAet": True,
        "StableAge": 1,
        "Plugins": [str(PLUGIN)],
        "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
    }
    (folder / "orthanc.json").write_text(json.dumps(settings))
    with (folder / "log.txt").open("wb") as log:
        process = subprocess.Popen(
            [ORTHANC, str(folder / "orthanc.json")], stdout=log, stderr=log
        )
    try:
        _wait(running, process)
        yield running
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait(running: Orthanc, process: "subprocess.Popen[bytes]") -> None:
    until = time.monotonic() + _MOST_S
    while time.monotonic() < until:
        assert process.poll() is None, (running.folder / "log.txt").read_text()
        try:
            running.ask("/system")
        except OSError:
            time.sleep(0.1)
        else:
            return
    raise AssertionError("Orthanc does not answer.")
