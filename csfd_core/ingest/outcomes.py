"""What was done to one study of many, and how a step over many goes on."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from csfd_core.errors import CsfdError

WRITTEN: Final = "written"
UNCHANGED: Final = "unchanged"
QUARANTINED: Final = "quarantined"
FAILED: Final = "failed"
WITHDRAWN: Final = "withdrawn"  # left out, nothing of it is kept


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyOutcome:
    """What a step did to one study."""

    study_uid: str
    action: str  # WRITTEN, UNCHANGED, QUARANTINED, FAILED or WITHDRAWN
    slice_count: int = 0
    source_bytes: int = 0
    stored_bytes: int = 0
    codes: tuple[str, ...] = ()
    message: str = ""  # why it failed
    content_hash: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskOutcome:
    """What was done for one study."""

    study_uid: str
    action: str  # WRITTEN, UNCHANGED, QUARANTINED or FAILED
    message: str = ""
    note: Mapping[str, Any] = field(default_factory=dict)  # of the stored result
    seconds: float = 0.0


def make_all(
    make: Callable[[str], MaskOutcome], study_uids: Sequence[str]
) -> Iterator[MaskOutcome]:
    """Make many; a study that fails on purpose is an outcome and the others go on."""
    for study_uid in study_uids:
        try:
            yield make(study_uid)
        except CsfdError as error:
            yield MaskOutcome(study_uid=study_uid, action=FAILED, message=str(error))
