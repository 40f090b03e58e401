"""The one-page summary as an Encapsulated PDF, so that it lies beside the images."""

from typing import Final

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import EncapsulatedPDFStorage, ExplicitVRLittleEndian

from csfd_core.dicom_objects.column import column_of
from csfd_core.dicom_objects.identity import finish
from csfd_core.dicom_objects.kinds import ResultKind, series_uid_of, sop_uid_of
from csfd_core.dicom_objects.source import ResultSource
from csfd_core.reports.summary_pdf import Summary, summary_pdf

_KIND: Final = ResultKind.PDF
_TITLE: Final = "csfd summary (AI, not verified, research only)"


def make_summary(source: ResultSource) -> list[Dataset]:
    """Make the summary of a study."""
    study_uid, results = source.study_uid, source.result_set
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID = EncapsulatedPDFStorage
    dataset.SOPInstanceUID = sop_uid_of(study_uid, results, _KIND)
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.SeriesInstanceUID = series_uid_of(study_uid, results, _KIND)
    dataset.SeriesNumber = _KIND.series_number
    dataset.InstanceNumber = 1
    dataset.Modality = "DOC"
    dataset.ConversionType = "SYN"
    dataset.InstanceCreationDate = dataset.InstanceCreationTime = ""
    dataset.ContentDate = dataset.ContentTime = ""
    dataset.AcquisitionDateTime = ""
    dataset.BurnedInAnnotation = "NO"
    dataset.DocumentTitle = _TITLE
    dataset.ConceptNameCodeSequence = []
    dataset.VerificationFlag = "UNVERIFIED"
    dataset.MIMETypeOfEncapsulatedDocument = "application/pdf"
    content = summary_pdf(
        Summary(
            study_uid=study_uid,
            prediction=source.prediction,
            signed=None,
            column=column_of(source),
            made_at=source.made_at,
        )
    )
    dataset.EncapsulatedDocumentLength = len(content)
    dataset.EncapsulatedDocument = content + b"\0" * (len(content) % 2)
    return [finish(dataset, source, _KIND)]
