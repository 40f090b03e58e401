"""What was done to one study of many, and how a step over many goes on."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from csfd_core.errors import CsfdError, tell_error
from csfd_core.runtime.executors import completed


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


class Maker(Protocol):
    """Makes something of each study of a store, and keeps it there.

    It may be used from several threads.
    """

    def make(self, study_uid: str) -> StudyOutcome:
        """Make it of a study, unless it is current."""

    def of_study(self, study_uid: str) -> "Maker":
        """Return what makes it of one study alone, small enough to be sent."""


def make_all(
    make: Callable[[str], StudyOutcome], study_uids: Sequence[str]
) -> Iterator[StudyOutcome]:
    """Make many, in order; a study that fails is an outcome and the others go on."""
    for study_uid in study_uids:
        try:
            yield make(study_uid)
        except Exception as error:  # noqa: BLE001 - one study stops no other
            yield failure(study_uid, error)


def make_many(
    maker: Maker, study_uids: Sequence[str], executor: Executor
) -> list[StudyOutcome]:
    """Make many by an executor; return the outcomes in the order of the studies.

    A study that fails is an outcome and the others go on.

    Args:
        maker: What makes them.
        study_uids: What to make.
        executor: Of a ``StudyMap``.

    Raises:
        UnfitWorkerError: If a Dask worker cannot be trusted.
        SettingsError: If the Dask scheduler is gone.
    """
    calls = ((maker.of_study(uid), uid) for uid in study_uids)
    outcomes = {}
    for (_, study_uid), future in completed(executor, _make_one, calls):
        error = future.exception()
        outcomes[study_uid] = failure(study_uid, error) if error else future.result()
    return [outcomes[study_uid] for study_uid in study_uids]


def _make_one(call: tuple[Maker, str]) -> StudyOutcome:
    maker, study_uid = call
    return maker.make(study_uid)


def failure(study_uid: str, error: BaseException) -> StudyOutcome:
    """Return the outcome of a study that could not be worked on."""
    told = tell_error(error)
    if not isinstance(error, CsfdError):
        told = f"Study {study_uid} cannot be worked on: {told}"
    return StudyOutcome(study_uid=study_uid, action=Outcome.FAILED, message=told)
