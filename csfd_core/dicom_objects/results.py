"""All objects of one prediction, and the report that a reader has signed.

Pure: headers, mask and prediction in, data sets out. highdicom is imported when an
object is made.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from pydicom.dataset import Dataset

from csfd_core.dicom_objects.kinds import MADE_BY_MODEL
from csfd_core.dicom_objects.kinds import ResultKind as ResultKind
from csfd_core.dicom_objects.kinds import result_set as result_set
from csfd_core.dicom_objects.source import ResultSource, SignedReview


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultObject:
    """One object, with its file meta information: to be written, or to be sent."""

    kind: ResultKind
    dataset: Dataset

    @property
    def sop_uid(self) -> str:
        """SOPInstanceUID."""
        return str(self.dataset.SOPInstanceUID)

    @property
    def series_uid(self) -> str:
        """SeriesInstanceUID."""
        return str(self.dataset.SeriesInstanceUID)

    @property
    def sop_class_uid(self) -> str:
        """SOPClassUID."""
        return str(self.dataset.SOPClassUID)


def make_results(
    source: ResultSource, kinds: Sequence[ResultKind] = MADE_BY_MODEL
) -> list[ResultObject]:
    """Make the objects of a prediction.

    A study without any vertebra has no SEG; one without a level above its operating
    point has no key image.

    Args:
        source: The study.
        kinds: Which ones; a signed report is made by ``make_signed``.
    """
    from csfd_core.dicom_objects.key_images import make_key_images
    from csfd_core.dicom_objects.measurement_report import make_report
    from csfd_core.dicom_objects.segmentation import make_segmentation
    from csfd_core.dicom_objects.summary import make_summary

    makers = {
        ResultKind.SEG: make_segmentation,
        ResultKind.SR: make_report,
        ResultKind.KEY_IMAGE: make_key_images,
        ResultKind.PDF: make_summary,
    }
    return [
        ResultObject(kind=kind, dataset=dataset)
        for kind, make in makers.items()
        if kind in kinds
        for dataset in make(source)
    ]


def make_signed(
    source: ResultSource, review: SignedReview, earlier: SignedReview | None = None
) -> ResultObject:
    """Make the report of what a reader has signed.

    It names the model's report as its predecessor, and that of an earlier review which
    it takes the place of.

    Args:
        source: The study.
        review: What was signed.
        earlier: What the same reader had signed before.
    """
    from csfd_core.dicom_objects.signed_report import make_signed_report

    dataset = make_signed_report(source, review, earlier)
    return ResultObject(kind=ResultKind.SIGNED_SR, dataset=dataset)
