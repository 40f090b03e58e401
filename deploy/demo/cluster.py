"""All services of a cluster on one machine, each on a machine of its own."""

import shutil
import sys
import sysconfig
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Final

from csfd_dagster.instance.files import INSTANCE
from deploy.demo.machines import Machines, Service, machines_in
from deploy.demo.ports import HOST, free_ports, listens
from deploy.demo.postgres import make_databases, postgres, url_of
from deploy.demo.seaweed import BUCKET, credentials, open_client, seaweed

DEFINITIONS: Final = "csfd_dagster.definitions"
LOCATION: Final = "csfd"
DESK: Final = "desk"  # where commands are given
ALONE: Final = "alone"  # where the same is done in one process
_INSTANCE: Final = Path(__file__).parents[1] / INSTANCE
_SCHEDULER, _WORKERS = "dask scheduler", ("dask worker gpu", "dask worker cpu")

Say = Callable[[str], None]


@dataclass(slots=True)
class Cluster:
    """Services by name, in the order in which they are started."""

    machines: Machines
    variables: dict[str, str]
    database_port: int
    counts_port: int
    services: dict[str, Service] = field(default_factory=dict)

    def start(self, *names: str) -> None:
        """Start services and wait until they answer."""
        for name in names:
            self.machines.start(self.services[name])

    def kill(self, name: str) -> None:
        """Kill a service as a power cut would."""
        self.machines.kill(name)

    def url(self, key: str) -> str:
        """Return where something lies on S3."""
        return f"s3://{BUCKET}/{key}"

    def call(self, command: str, *arguments: str) -> float:
        """Give a command of csfd at the desk; return how many seconds it took."""
        return self.machines.call(
            DESK, [program("csfd"), command, *arguments], self.variables
        )


@contextmanager
def cluster_in(
    root: Path, say: Say, variables: dict[str, str], *, is_whole: bool = True
) -> Iterator[Cluster]:
    """Start Postgres and S3, and all else but what runs the graph.

    Args:
        root: Folder of state and logs.
        say: Told what is started.
        variables: Of all machines, beside those of their places.
        is_whole: With MLflow's server, Dask and Dagster's webserver.
    """
    with machines_in(root) as machines:
        cluster = _plan(machines, variables, is_whole=is_whole)
        cluster.start("postgres", "seaweedfs")
        say("Postgres and S3 answer.")
        make_databases(cluster.database_port, "dagster", "mlflow")
        with closing(open_client(cluster.variables)) as client:
            client.create_bucket(Bucket=BUCKET)
        if is_whole:
            cluster.start("mlflow", _SCHEDULER, *_WORKERS)
            say("MLflow's server, Dask's scheduler and two workers answer.")
        yield cluster


def start_graph(cluster: Cluster) -> None:
    """Start what runs the graph: code server and daemon, and who shows it."""
    names = [n for n in ("code server", "daemon", "webserver") if n in cluster.services]
    cluster.start(*names)


def _plan(machines: Machines, variables: dict[str, str], *, is_whole: bool) -> Cluster:
    ports = free_ports(10)
    database, code = ports[0], ports[1]
    shared = {
        **credentials(ports[2]),
        "CSFD_SOURCE": f"s3://{BUCKET}/source",
        "CSFD_INBOX": f"s3://{BUCKET}/inbox",
        "CSFD_STORE": f"s3://{BUCKET}/store",
        "DAGSTER_POSTGRES_URL": url_of(database, "dagster", "postgresql+psycopg2"),
        "DAGSTER_EVENT_BATCH_SIZE": "256",
        **variables,
    }
    if is_whole:
        shared["CSFD_DASK"] = f"tcp://{HOST}:{ports[6]}"
        shared["MLFLOW_TRACKING_URI"] = f"http://{HOST}:{ports[7]}"
    planned = [
        postgres(machines, "database", database),
        seaweed(machines, "storage", [*ports[2:6], ports[9]]),
    ]
    if is_whole:
        planned += [
            _mlflow(ports[7], url_of(database, "mlflow", "postgresql+psycopg")),
            *_dask(ports[6]),
            _webserver(ports[8], machines, code),
        ]
    planned += [_code_server(code), _daemon(machines, code)]
    for machine in ("graph", "daemon", "web", DESK):
        shutil.copy(_INSTANCE, machines.home(machine) / INSTANCE)
    cluster = Cluster(machines, shared, database, ports[9])
    for service in planned:
        own = {} if service.name in ("postgres", "seaweedfs") else shared
        cluster.services[service.name] = _with(service, own)
    return cluster


def _with(service: Service, variables: dict[str, str]) -> Service:
    return replace(service, variables={**variables, **service.variables})


def _mlflow(port: int, database: str) -> Service:
    command = [
        *(program("mlflow"), "server", "--host", HOST, "--port", str(port)),
        *("--backend-store-uri", database, "--workers", "1"),
        *("--artifacts-destination", f"s3://{BUCKET}/mlflow"),
    ]
    return Service(
        name="mlflow",
        machine="tracking",
        command=command,
        is_ready=lambda: listens(port),
        variables={"MLFLOW_DISABLE_TELEMETRY": "true"},
    )


def _dask(port: int) -> list[Service]:
    address = f"tcp://{HOST}:{port}"
    scheduler = Service(
        name=_SCHEDULER,
        machine="scheduler",
        command=[
            *(program("dask"), "scheduler", "--host", HOST, "--port", str(port)),
            "--no-dashboard",
        ],
        is_ready=lambda: listens(port),
    )
    workers = []
    for count, (name, more) in enumerate(
        zip(_WORKERS, (["--resources", "GPU=1"], []), strict=True), 1
    ):
        command = [
            *(program("dask"), "worker", address, "--host", HOST, "--name", name),
            *("--nthreads", "1", "--no-dashboard", "--memory-limit", "0", *more),
        ]
        workers.append(
            Service(
                name=name,
                machine=name.removeprefix("dask "),
                command=command,
                is_ready=partial(_has_workers, address, count),
            )
        )
    return [scheduler, *workers]


def _has_workers(address: str, count: int) -> bool:
    from distributed import Client

    with Client(address, timeout="20s", set_as_default=False) as client:  # type: ignore[no-untyped-call]
        return len(client.scheduler_info()["workers"]) >= count


def _code_server(port: int) -> Service:
    command = [
        *(sys.executable, "-m", "csfd_dagster.code_server", "api", "grpc"),
        *("--module-name", DEFINITIONS, "--host", HOST, "--port", str(port)),
        *("--location-name", LOCATION, "--use-python-environment-entry-point"),
        *("--inject-env-vars-from-instance", "--log-level", "warning"),
    ]
    return Service(
        name="code server",
        machine="graph",
        command=command,
        is_ready=lambda: listens(port),
    )


def _daemon(machines: Machines, code_port: int) -> Service:
    command = [
        *(sys.executable, "-m", "csfd_dagster.daemon", "run"),
        *("--log-level", "warning", "--workspace"),
        str(_workspace(machines, "daemon", code_port)),
    ]
    return Service(
        name="daemon", machine="daemon", command=command, is_ready=lambda: True
    )


def _webserver(port: int, machines: Machines, code_port: int) -> Service:
    command = [
        *(program("dagster-webserver"), "--host", HOST, "--port", str(port)),
        *("--workspace", str(_workspace(machines, "web", code_port))),
    ]
    return Service(
        name="webserver",
        machine="web",
        command=command,
        is_ready=lambda: listens(port),
    )


def _workspace(machines: Machines, machine: str, code_port: int) -> Path:
    path = machines.home(machine) / "workspace.yaml"
    path.write_text(
        "load_from:\n  - grpc_server:\n"
        f"      host: {HOST}\n      port: {code_port}\n"
        f"      location_name: {LOCATION}\n"
    )
    return path


def program(name: str) -> str:
    """Return the path of a program that is installed beside this Python."""
    return str(Path(sysconfig.get_path("scripts")) / name)
