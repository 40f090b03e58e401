"""The files of ``deploy/`` fit what csfd has."""

import re
import subprocess
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.paths import ROOT

from csfd_core.settings import GROUPS, variable_of
from deploy import costs

DEPLOY = ROOT / "deploy"
COMPOSE = yaml.safe_load((DEPLOY / "compose" / "compose.yaml").read_text())
MANIFESTS = ("helm/values.yaml", "helm/dask.yaml", "helm/mlflow.yaml", "dagster.yaml")


def section(path: Path, name: str) -> Any:
    return yaml.safe_load(path.read_text())[name]


@pytest.mark.parametrize(
    "name", ["concurrency", "run_retries", "sensors", "retention", "telemetry", "nux"]
)
def test_servers_have_the_limits_of_a_laptop(name: str) -> None:
    own = ROOT / "csfd_dagster" / "instance" / "dagster.yaml"
    assert section(DEPLOY / "dagster.yaml", name) == section(own, name)


def test_chart_has_the_pools_of_the_instance() -> None:
    more = section(DEPLOY / "helm" / "values.yaml", "additionalInstanceConfig")
    pools = section(DEPLOY / "dagster.yaml", "concurrency")["pools"]
    assert more["concurrency"]["pools"] == pools


def test_dockerfile_is_clean() -> None:
    program = Path(sysconfig.get_path("scripts")) / "hadolint"
    found = subprocess.run(
        [program, "--no-color", DEPLOY / "Dockerfile"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (found.returncode, found.stdout) == (0, "")


@pytest.mark.parametrize("name", MANIFESTS)
def test_manifests_are_yaml(name: str) -> None:
    assert all(yaml.safe_load_all((DEPLOY / name).read_text()))


def named_variables() -> Iterator[str]:
    for path in sorted(DEPLOY.rglob("*.yaml")):
        yield from re.findall(r"^\s+(?:- \{name: )?(CSFD_\w+)", path.read_text(), re.M)


def test_every_variable_is_a_setting() -> None:
    known = {
        variable_of(group, name) for group in GROUPS for name in group.model_fields
    }
    named = set(named_variables())
    assert {"CSFD_STORE", "CSFD_DASK", "CSFD_KEY_FILE"} <= named <= known


def test_services_of_the_compose_file_are_started_again_and_seen_from_here_only() -> (
    None
):
    for name, service in COMPOSE["services"].items():
        assert service["restart"] == "unless-stopped", name
        for port in service.get("ports", []):
            assert port.startswith("127.0.0.1:"), name


def test_services_of_the_compose_file_speak_to_each_other() -> None:
    code = COMPOSE["services"]["code"]["command"]
    (server,) = section(DEPLOY / "compose" / "workspace.yaml", "load_from")
    assert server["grpc_server"]["host"] in COMPOSE["services"]
    assert f"--port {server['grpc_server']['port']}" in code
    shared = COMPOSE["services"]["daemon"]["environment"]
    for name in ("CSFD_DASK", "MLFLOW_TRACKING_URI", "DAGSTER_POSTGRES_URL"):
        host = re.sub(r"^.*(@|//)([\w-]+):\d+.*$", r"\2", shared[name])
        assert host in COMPOSE["services"], name
    assert shared["DAGSTER_POSTGRES_URL"].startswith("postgresql+psycopg2://")


def test_slurm_script_is_bash() -> None:
    subprocess.run(["bash", "-n", DEPLOY / "slurm" / "csfd.sh"], check=True)


@pytest.mark.filterwarnings("ignore")  # what Dask says of its own parts
def test_workers_of_slurm_ask_for_what_they_need(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.syspath_prepend(DEPLOY / "slurm")
    import workers

    with workers.cluster_of(4, 6, "gpu", has_gpu=True) as cluster:
        script = cluster.job_script()
    for wanted in ("-p gpu", "-t 06:00:00", "--gres=gpu:1", "--resources GPU=1"):
        assert wanted in script
    assert "--nthreads 1" in script
    assert "--lifetime 350m" in script


def test_page_has_the_costs_as_they_are_computed() -> None:
    assert costs.page() in (ROOT / "docs" / "scale.md").read_text()


def test_costs_are_those_of_the_figures() -> None:
    """A store of 2,019 studies by hand: slices of 72.8 KB, and crops."""
    found = costs.cost_of(2_019, workers=8)
    assert found.store_tb == pytest.approx((711_601 * 72.8e3 + 3.3e9) / 1e12, rel=0.01)
    assert found.source_tb == pytest.approx(711_601 * 525e3 / 1e12, rel=0.01)
    more = costs.cost_of(20_190, workers=8)
    assert more.processor_h == pytest.approx(10 * found.processor_h)
    assert more.gpu_h == found.gpu_h


def test_every_measured_figure_names_a_result_that_is_there() -> None:
    named = [re.findall(r"`(\w+\.json)`", f.source) for f in costs.FIGURES.values()]
    results = [name for names in named for name in names]
    assert len(results) > 5
    for name in results:
        assert (ROOT / "benchmarks" / "results" / name).is_file(), name
