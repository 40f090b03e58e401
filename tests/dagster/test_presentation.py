"""What Dagster is shown."""

import dagster as dg
import pandas as pd

from csfd_dagster.presentation import table_of


def test_table_without_rows_keeps_its_columns() -> None:
    shown = table_of(pd.DataFrame(columns=["fold", "studies"]))
    assert isinstance(shown, dg.TableMetadataValue)
    assert shown.records == []
    assert [column.name for column in shown.schema.columns] == ["fold", "studies"]
