"""What the store has of studies, read at once, to be compared with the sources."""

from collections.abc import Mapping
from dataclasses import dataclass

from csfd_core.store.metadata import StudyRecord
from csfd_core.store.notes import GivenMaskNote, SliceNote
from csfd_core.store.stores import Stores


@dataclass(frozen=True, slots=True)
class Stored:
    """Records and notes by StudyInstanceUID, of the studies that have any."""

    records: Mapping[str, StudyRecord]
    slices: Mapping[str, SliceNote]
    masks: Mapping[str, GivenMaskNote]

    @classmethod
    def of_all(cls, stores: Stores) -> "Stored":
        """Read what is stored of all studies; of most, nothing has to be opened."""
        return cls(
            records={one.study_uid: one for one in stores.metadata.read_records()},
            slices=stores.slices.read_notes(),
            masks=stores.masks.read_notes(),
        )

    @classmethod
    def of_study(cls, stores: Stores, study_uid: str) -> "Stored":
        """Read what is stored of one study.

        Raises:
            IdentifierError: If ``study_uid`` is no valid UID.
        """
        record = stores.metadata.read_record(study_uid)
        slices = stores.slices.read_note(study_uid)
        mask = stores.masks.read_note(study_uid)
        return cls(
            records={} if record is None else {study_uid: record},
            slices={} if slices is None else {study_uid: slices},
            masks={} if mask is None else {study_uid: mask},
        )
