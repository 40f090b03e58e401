"""What was done to one study of many, and how a step over many goes on."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from csfd_core.errors import CsfdError, tell_error
from csfd_core.runtime.executors import in_threads


class Outcome(StrEnum):
    """What a step did to a study."""

    WRITTEN = "written"
    UNCHANGED = "unchanged"  # it was current
    SEGMENTED = "segmented"
    PREDICTED = "predicted"
    NOT_ASSESSED = "not assessed"  # a result without a number: no level was found
    QUARANTINED = "quarantined"  # not trusted, so nothing was made of it
    REFUSED = "refused"  # an input that cannot be trusted; the message says why
    WITHDRAWN = "withdrawn"  # left out, nothing of it is kept
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyOutcome:
    """What a step did to one study; each step fills in what it knows.

    Attributes:
        message: Why it failed, or what else a person should know.
        content_hash: Of the study's slices.
        model_id: Of the segmentation that the result rests on.
        standing: Whether that model has seen the study.
        levels: Vertebrae in the result.
        flags: What in it contradicts anatomy.
        seconds: Of computing it.
    """

    study_uid: str
    action: Outcome
    slice_count: int = 0
    source_bytes: int = 0
    stored_bytes: int = 0
    codes: tuple[str, ...] = ()
    message: str = ""
    content_hash: str = ""
    model_id: str = ""
    standing: str = ""
    levels: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()
    seconds: float = 0.0


def make_all(
    make: Callable[[str], StudyOutcome], study_uids: Sequence[str], threads: int = 1
) -> Iterator[StudyOutcome]:
    """Make many, in order; a study that fails is an outcome and the others go on.

    Args:
        make: Safe to be called from several threads, where there are.
        study_uids: What to make.
        threads: That make; one is the caller's own.
    """

    def attempt(study_uid: str) -> StudyOutcome:
        try:
            return make(study_uid)
        except Exception as error:  # noqa: BLE001 - one study stops no other
            return failure(study_uid, error)

    yield from in_threads(attempt, study_uids, threads)


def failure(study_uid: str, error: BaseException) -> StudyOutcome:
    """Return the outcome of a study that could not be worked on."""
    told = tell_error(error)
    if not isinstance(error, CsfdError):
        told = f"Study {study_uid} cannot be worked on: {told}"
    return StudyOutcome(study_uid=study_uid, action=Outcome.FAILED, message=told)
