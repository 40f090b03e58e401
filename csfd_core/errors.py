"""Errors that csfd raises on purpose.

The tree::

    CsfdError
    ├── SettingsError          a setting or argument cannot be used
    │   └── OvertakenError     another one has changed what it was said of
    ├── SourceError            a source or store location cannot be read or written
    ├── IdentifierError        an identifier from outside is not a valid DICOM UID
    ├── DicomError             one DICOM file cannot be used
    │   ├── FileTooLargeError  it is larger than any slice
    │   ├── NotDicomError      it is no DICOM file at all
    │   └── PixelDataError     its pixel data cannot be decoded
    ├── MaskError              a segmentation mask cannot be used
    ├── StoreError             a stored file lacks what its contract promises
    ├── WorkerDiedError        the process that worked on something has died
    └── UnfitWorkerError       a Dask worker is not such that it could be trusted

Every error takes one string, so that it survives pickling between processes. The string
says what was received and what to do about it. A defect of a *study* is no exception:
it is a finding (``csfd_core.dicom.findings``) that quarantines the study. Too little
memory is no defect of a study, and told as what it is.
"""

import errno
from typing import Final

TOO_LITTLE_MEMORY: Final = (
    "There is too little memory for it. End other programs, or give csfd more, and "
    "start it again."
)
_NOT_LOADED: Final = ("failed to map segment", "cannot allocate memory")  # ld.so(8)


class CsfdError(Exception):
    """Base of all errors that csfd raises on purpose."""


class SettingsError(CsfdError):
    """A setting or argument has a value that cannot be used."""


class OvertakenError(SettingsError):
    """Another one has changed meanwhile what something was said or decided of."""


class SourceError(CsfdError):
    """A source or store location cannot be read or written."""


class IdentifierError(CsfdError):
    """An identifier from outside is not a valid DICOM UID."""


class DicomError(CsfdError):
    """One DICOM file cannot be used."""


class FileTooLargeError(DicomError):
    """A file is larger than any slice, or would be once it is inflated."""


class NotDicomError(DicomError):
    """A file is no DICOM file at all."""


class PixelDataError(DicomError):
    """The pixel data of a DICOM file cannot be decoded."""


class MaskError(CsfdError):
    """A segmentation mask cannot be used."""


class StoreError(CsfdError):
    """A stored file lacks what its contract promises."""


class WorkerDiedError(CsfdError):
    """The process that worked on something has died, twice."""


class UnfitWorkerError(CsfdError):
    """A Dask worker has another csfd or secret, or does not see the store."""


def is_want_of_memory(error: BaseException) -> bool:
    """Say whether something failed for want of memory, whoever has noticed."""
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    if isinstance(error, ImportError):  # of a library, as TensorFlow's
        return any(text in str(error).lower() for text in _NOT_LOADED)
    named = type(error).__name__ == "ResourceExhaustedError"  # TensorFlow's
    return named or isinstance(error, MemoryError)


def tell_error(error: BaseException) -> str:
    """Say what went wrong, in a sentence without a text from outside."""
    if isinstance(error, CsfdError):
        return str(error)
    if is_want_of_memory(error):
        return TOO_LITTLE_MEMORY
    return f"{type(error).__name__}."
