"""The store that a command works on: opened the same way by all of them."""

import typer

from csfd_core.store.locations import Location
from csfd_core.store.stores import Stores
from csfd_core.text import count


def open_stores(location: str) -> Stores:
    """Open a store; finish the withdrawals that were cut off before anything else.

    Raises:
        SourceError: If one of them cannot be finished.
    """
    stores = Stores(Location(location))
    if stores.withdrawn.unfinished():
        from csfd_core.lineage.redaction import all_records
        from csfd_core.lineage.withdrawal import finish_withdrawals
        from csfd_core.settings import Settings

        def say(told: str) -> None:
            typer.echo(told, err=True)

        records = all_records(Settings.read().mlflow_tracking_uri)
        finished = finish_withdrawals(stores, records, say)
        say(f"{count(finished, 'withdrawal', 'was', 'were')} finished.")
    return stores
