"""What a store says of itself: ``store.json`` at its root.

Written once, at the first write of a run.
"""

from typing import Literal

import pydantic

from csfd_core.errors import StoreError
from csfd_core.store.locations import Location
from csfd_core.store.paths import STORE_RECORD
from csfd_core.vocabulary import Profile


class StoreRecord(pydantic.BaseModel):
    """The record of a store."""

    schema_version: Literal[1] = 1
    profile: Profile


def read_record(root: Location) -> StoreRecord | None:
    """Return the record of a store, ``None`` where it has none.

    Raises:
        SourceError: If the store was not moved here completely.
        StoreError: If it cannot be read, as when a newer csfd has written it.
    """
    root.require_complete()
    content = root.read_if_there(STORE_RECORD)
    if content is None:
        return None
    try:
        return StoreRecord.model_validate_json(content)
    except pydantic.ValidationError as error:
        raise StoreError(
            f"{root}/{STORE_RECORD} is not a record of a store as csfd writes it "
            "(schema version 1, profile demo or full). Has a newer csfd written it? "
            "Restore it, or use another store."
        ) from error


def write_record(root: Location, record: StoreRecord) -> None:
    """Write the record of a store."""
    root.write(STORE_RECORD, f"{record.model_dump_json(indent=2)}\n".encode())
