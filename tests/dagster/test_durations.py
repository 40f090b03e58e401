"""The table at the end of ``csfd run``: what every step took, and what is left over."""

import time

import dagster as dg
import pytest

from csfd_core.cli.console import print_durations
from csfd_dagster.definitions import build_defs
from csfd_dagster.durations import _TOGETHER, REST, Durations


@dg.asset
def slice_store() -> None:
    time.sleep(0.3)


@dg.asset(deps=[slice_store])
def basic_cnn() -> None:
    time.sleep(0.1)


@dg.asset_check(asset=slice_store)
def is_there() -> dg.AssetCheckResult:
    return dg.AssetCheckResult(passed=True)


@dg.asset(deps=[basic_cnn])
def comparison_report() -> None:
    raise dg.Failure("planted", allow_retries=False)


def test_steps_are_told_by_what_they_took_in_the_order_of_the_work() -> None:
    durations = Durations()
    with dg.DagsterInstance.ephemeral() as instance:
        for _ in range(2):  # as a retraining does
            result = dg.materialize(
                [slice_store, is_there, basic_cnn, comparison_report],
                instance=instance,
                raise_on_error=False,
            )
            durations.add(instance, result.run_id)
    parts = durations.parts(100.0)
    assert list(parts) == ["ingestion", "basic_cnn", "reports", "checks", REST]
    assert 0.6 <= parts["ingestion"] < parts[REST]
    assert 0.2 <= parts["basic_cnn"] < parts["ingestion"]
    assert sum(parts.values()) == pytest.approx(100.0)


def test_every_part_is_of_an_asset() -> None:
    graph = build_defs({}).resolve_asset_graph()
    assert set(_TOGETHER) <= {
        key.to_user_string() for key in graph.get_all_asset_keys()
    }


def test_the_table_has_a_row_for_each_part_and_their_sum(
    capsys: pytest.CaptureFixture[str],
) -> None:
    print_durations({"masks": 61.26, "crops": 8.0})
    printed = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["masks", "61.3"] in printed
    assert ["all", "69.3"] in printed
