"""Asset check: whether new studies are like those of the training."""

import dagster as dg

from csfd_core.errors import StoreError
from csfd_core.reports.drift.report import read_report
from csfd_dagster.resources.stores import StoreResource


@dg.asset_check(asset="data_drift")
def data_has_not_drifted(store: StoreResource) -> dg.AssetCheckResult:
    """No feature of the new studies differs by more than chance and by its margin.

    Warns and holds nothing back: a model may serve on data that have drifted, but what
    it says of them was never measured. Passes where there is too little to judge.
    """
    note = read_report(store.open())
    if note is None:
        raise StoreError("The store has no report on drift. Materialize data_drift.")
    return dg.AssetCheckResult(
        passed=not note["drifted"],
        severity=dg.AssetCheckSeverity.WARN,
        description=note["summary"],
        metadata={
            "verdict": note["verdict"],
            "drifted": [f"{name}: {why}" for name, why in note["drifted"].items()],
            "judged_features": note["judged"],
            "new_studies": len(note["current_studies"]),
        },
    )


DRIFT_CHECKS = [data_has_not_drifted]
