"""What a simulation shows on a terminal."""

from collections.abc import Sequence

import pandas as pd
from rich.box import SIMPLE
from rich.table import Table

from csfd_core.cli.console import _cell, _console
from csfd_dagster.simulation.ledger import Verdict

_WEEK_TEXTS = ("events", "serves", "decision")


def print_weeks(weeks: pd.DataFrame, verdicts: Sequence[Verdict]) -> None:
    """Print what happened in the weeks of a simulation, and what must hold."""
    console = _console()
    table = Table(
        box=SIMPLE,
        title="Weeks of a simulation on phantoms; scores are competition log losses",
        title_justify="left",
    )
    for name in weeks.columns:
        is_text = name in _WEEK_TEXTS
        table.add_column(name, justify="left" if is_text else "right", overflow="fold")
    for row in weeks.astype(object).where(weeks.notna(), "").itertuples(index=False):
        table.add_row(*(_cell(value) for value in row))
    console.print(table)
    for verdict in verdicts:
        console.print(f"{'holds' if verdict.holds else 'FAILS'}  {verdict.sentence}")
