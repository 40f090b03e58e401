"""The pods that runs get on Kubernetes, from the values of Dagster's chart."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import dagster as dg
import pytest
import yaml
from dagster._core.remote_origin import (
    RegisteredCodeLocationOrigin,
    RemoteJobOrigin,
    RemoteRepositoryOrigin,
)
from dagster_k8s import K8sRunLauncher
from dagster_k8s.job import construct_dagster_k8s_job
from support.paths import ROOT

from csfd_dagster.definitions import defs
from csfd_dagster.training_runs import POD

VALUES = yaml.safe_load((ROOT / "deploy" / "helm" / "values.yaml").read_text())
KUBECONFIG = {
    "apiVersion": "v1",
    "kind": "Config",
    "current-context": "here",
    "contexts": [{"name": "here", "context": {"cluster": "here", "user": "me"}}],
    "clusters": [{"name": "here", "cluster": {"server": "http://127.0.0.1:1"}}],
    "users": [{"name": "me", "user": {}}],
}


def snake(value: Any) -> Any:
    """Name keys as Dagster's Python does; the chart's templates do the same."""
    if isinstance(value, list):
        return [snake(one) for one in value]
    if not isinstance(value, dict):
        return value
    return {
        re.sub("(?<!^)(?=[A-Z])", "_", k).lower(): snake(v) for k, v in value.items()
    }


@pytest.fixture
def launcher(tmp_path: Path) -> K8sRunLauncher:
    """As the chart configures it, with the secret and volume of the code server."""
    given = VALUES["runLauncher"]["config"]["k8sRunLauncher"]
    code = VALUES["dagster-user-deployments"]["deployments"][0]
    image = code["image"]
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text(yaml.safe_dump(KUBECONFIG))
    return K8sRunLauncher(
        service_account_name="csfd",
        instance_config_map="csfd-instance",
        postgres_password_secret="dagster-postgresql-secret",
        dagster_home="/opt/dagster/dagster_home",
        job_image=f"{image['repository']}:{image['tag']}",
        image_pull_policy=given["imagePullPolicy"],
        load_incluster_config=False,
        kubeconfig_file=str(kubeconfig),
        env_secrets=[one["name"] for one in code["envSecrets"]],
        volumes=snake(code["volumes"]),
        volume_mounts=snake(code["volumeMounts"]),
        resources=given["resources"],
        run_k8s_config={
            snake_key: snake(value)
            for key, value in given["runK8sConfig"].items()
            for snake_key in snake({key: 0})
        },
    )


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    coordinator = VALUES["dagsterDaemon"]["runCoordinator"]["config"]
    more = VALUES["additionalInstanceConfig"]["concurrency"]
    overrides = {
        "run_coordinator": coordinator["customRunCoordinator"],
        "concurrency": more,
    }
    with dg.DagsterInstance.local_temp(overrides=overrides) as made:
        yield made


def submit(
    instance: dg.DagsterInstance, tags: dict[str, str], *assets: str
) -> dg.DagsterRun:
    """Put a run into the queue, as the daemon does for the conditions."""
    job = defs.resolve_implicit_global_asset_job_def()
    place = RemoteRepositoryOrigin(RegisteredCodeLocationOrigin("csfd"), "csfd")
    run = instance.create_run_for_job(
        job,
        asset_selection=frozenset(dg.AssetKey(name) for name in assets),
        tags={"csfd/asked_by": "conditions", **tags},
        remote_job_origin=RemoteJobOrigin(place, job.name),
    )
    context = dg.SubmitRunContext(run, mock.Mock(spec=[]))
    queued = instance.run_coordinator.submit_run(context)
    assert queued.status is dg.DagsterRunStatus.QUEUED
    return queued


def pod_of(
    instance: dg.DagsterInstance, launcher: K8sRunLauncher, *assets: str
) -> dict[str, Any]:
    """Return the pod that would be made for a run."""
    queued = submit(instance, {}, *assets)
    context = launcher.get_container_context_for_run(queued)
    job = construct_dagster_k8s_job(
        context.get_k8s_job_config(job_image=None, run_launcher=launcher),
        args=["dagster", "api", "execute_run"],
        job_name="dagster-run-1",
        user_defined_k8s_config=context.run_k8s_config,
    )
    spec = job.to_dict()["spec"]
    assert spec["ttl_seconds_after_finished"] == 86400
    return dict(spec["template"]["spec"])


@pytest.mark.parametrize("asset", ["segmentation_model", "basic_cnn", "resnet50"])
def test_pod_of_a_training_has_a_gpu(
    instance: dg.DagsterInstance, launcher: K8sRunLauncher, asset: str
) -> None:
    pod = pod_of(instance, launcher, asset)
    (container,) = pod["containers"]
    resources = container["resources"]
    assert resources["limits"] == {"memory": "64Gi", "nvidia.com/gpu": "1"}
    assert resources["requests"]["nvidia.com/gpu"] == "1"
    assert pod["node_selector"] == {"accelerator": "nvidia"}
    assert [one["key"] for one in pod["tolerations"]] == ["nvidia.com/gpu"]


def test_pod_of_anything_else_has_none(
    instance: dg.DagsterInstance, launcher: K8sRunLauncher
) -> None:
    pod = pod_of(instance, launcher, "study_headers", "slice_store")
    (container,) = pod["containers"]
    assert container["resources"] == {
        "claims": None,
        "requests": {"cpu": "1", "memory": "4Gi"},
        "limits": {"memory": "16Gi"},
    }
    assert pod["node_selector"] is None
    assert not pod["tolerations"]


def test_every_pod_has_the_secrets_and_is_not_root(
    instance: dg.DagsterInstance, launcher: K8sRunLauncher
) -> None:
    pod = pod_of(instance, launcher, "basic_cnn")
    (container,) = pod["containers"]
    assert container["image"] == "csfd:0.2.0"
    sources = [one["secret_ref"]["name"] for one in container["env_from"]]
    assert sources == ["csfd-secrets"]
    mounted = {one["name"]: one["mount_path"] for one in container["volume_mounts"]}
    assert mounted["key"] == "/run/csfd"
    assert pod["security_context"]["run_as_user"] == 10001
    assert pod["security_context"]["run_as_non_root"]


def test_a_run_that_says_what_its_pod_needs_keeps_it(
    instance: dg.DagsterInstance,
) -> None:
    own = json.dumps({"container_config": {"resources": {"limits": {"cpu": "1"}}}})
    assert submit(instance, {POD: own}, "basic_cnn").tags[POD] == own
