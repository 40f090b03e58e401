"""The files of one study, read one by one: every file has an account.

A file is a slice, an image of another kind, an object that is no image, a bystander
such as a viewer's own file, or a defect. What is a defect follows from its name as far
as its content does not tell: an empty file that is named like the slices beside it is a
slice that was lost.
"""

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from csfd_core.dicom.elements import is_native
from csfd_core.dicom.findings import Finding
from csfd_core.dicom.headers import (
    CT_IMAGE_STORAGE,
    SliceHeader,
    read_slice_header,
)
from csfd_core.dicom.hounsfield import mean_hu
from csfd_core.dicom.limits import MEGABYTE, limits
from csfd_core.dicom.pixels import DecodedSlice
from csfd_core.errors import (
    DicomError,
    FileTooLargeError,
    NotDicomError,
    PixelDataError,
    SourceError,
)
from csfd_core.runtime.executors import in_threads
from csfd_core.store.locations import FileEntry
from csfd_core.store.source import StudyFolder
from csfd_core.text import count, safe_name

_FOR_A_MEAN: Final = 1000  # pixels; its error is a twentieth of what is looked for
BEGINNING_BYTES: Final = 64 * 1024  # CT headers take 1 to 20 KB
# Beside the slices in exports: viewers, their data, texts, pictures, results.
_BYSTANDER: Final = re.compile(
    r"DICOMDIR|LOCKFILE|VERSION|README|LICEN[CS]E|AUTORUN|THUMBS\.DB"
    r"|.*\.(7z|avi|bat|bmp|cfg|cmd|css|csv|db|dll|doc|docx|exe|gif|gz|h5|htm|html|icns"
    r"|ico|inf|ini|jar|jpeg|jpg|js|json|keras|log|md|mp4|nii|npy|npz|nrrd|pdf|plist|png"
    r"|ps1|rar|rtf|sh|sqlite|tar|tif|tiff|txt|url|xls|xlsx|xml|zip)",
    re.IGNORECASE | re.ASCII,
)

OnSlice = Callable[[DecodedSlice], None]


@dataclass(slots=True)
class StudyFiles:
    """Gathers what reading the files of a folder one by one brings up.

    Attributes:
        headers: Of all DICOM images.
        findings: Defects of files that are no readable image.
        undecodable: Why the pixels of an image cannot be decoded, by its file name.
        means_hu: Mean of an image, by its file name, where all of it was read.
        ignored: How many files were passed over, by what they are.
        digests: Of the content of every file that was read.
    """

    headers: list[SliceHeader] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    undecodable: dict[str, str] = field(default_factory=dict)
    means_hu: dict[str, float | None] = field(default_factory=dict)
    ignored: Counter[str] = field(default_factory=Counter)
    digests: list[str] = field(default_factory=list)

    def of_study(self, study_uid: str) -> "StudyFiles":
        """Return the same, with the images of one study alone."""
        headers = [h for h in self.headers if (h.study_uid or "") == study_uid]
        return StudyFiles(
            headers,
            self.findings,
            self.undecodable,
            self.means_hu,
            self.ignored,
            self.digests,
        )

    def add(self, other: "StudyFiles") -> None:
        """Add what reading further files has brought up."""
        self.headers += other.headers
        self.findings += other.findings
        self.undecodable |= other.undecodable
        self.means_hu |= other.means_hu
        self.ignored += other.ignored
        self.digests += other.digests

    def notes(self) -> list[str]:
        """Say what was passed over."""
        return [
            f"{count(n, 'stray file')} ignored ({kind})"
            for kind, n in sorted(self.ignored.items())
            if n
        ]


def is_hidden(path: str) -> bool:
    """Say whether a file belongs to the system that wrote it: ``._1.dcm``."""
    *folders, name = path.split("/")
    return name.startswith(".") or "__MACOSX" in folders


def is_bystander(name: str) -> bool:
    """Say whether a file that is no DICOM file need not have been one."""
    return _BYSTANDER.fullmatch(name) is not None


def read_files(
    folder: StudyFolder, on_slice: OnSlice | None, threads: int = 1
) -> StudyFiles:
    """Read every file of a study once.

    Args:
        folder: Its files.
        on_slice: Called with every image that can be decoded. What it raises is a
            defect of that image.
        threads: That decode; decoders let others work meanwhile.

    Raises:
        SourceError: If the source cannot be read.
    """
    files = StudyFiles()
    entries = {}
    for entry in folder.files:
        if is_hidden(entry.path.removeprefix(f"{folder.path}/")):
            files.ignored["hidden"] += 1
        elif not entry.size_bytes:
            _note_unusable(files, entry, "empty_file", "have no content")
        elif entry.size_bytes > limits().file_bytes:
            _note_too_large(files, entry)
        else:
            entries[entry.path] = entry
    whole = on_slice is not None or folder.source.is_local
    length = None if whole else BEGINNING_BYTES
    beginnings = folder.source.read_beginnings(list(entries), length)

    def read(beginning: tuple[str, bytes]) -> StudyFiles:
        path, raw = beginning
        one = StudyFiles()
        _read_file(one, folder, entries[path], raw, on_slice)
        return one

    for one in in_threads(read, beginnings, threads):
        files.add(one)
    return files


def read_header(
    folder: StudyFolder, entry: FileEntry, raw: bytes, digest: str = ""
) -> tuple[SliceHeader, bytes]:
    """Read the header of a file, and more of the file where the header goes on.

    Args:
        folder: The file's study.
        entry: The file.
        raw: All of it, or its first ``BEGINNING_BYTES``.
        digest: Identity of the file's content, to record.

    Returns:
        The header, and what was read of the file.

    Raises:
        DicomError: If it is no DICOM file, or its header is damaged.
        SourceError: If the rest cannot be read.
    """
    name = folder.file_name(entry)
    header = read_slice_header(raw, name, size_bytes=entry.size_bytes, digest=digest)
    if header is None:
        raw = folder.source.read(entry.path)
        header = read_slice_header(raw, name, digest=digest)
    if header is None:
        raise DicomError("The header has no end.")
    return header, raw


def _read_file(
    files: StudyFiles,
    folder: StudyFolder,
    entry: FileEntry,
    raw: bytes,
    on_slice: OnSlice | None,
) -> None:
    # S3's ETag changes with the content; a disk tells nothing, so the bytes are hashed
    # (XXH3 with 128 bits: against chance, and ten times as fast as SHA-256).
    digest = entry.digest_of(raw)
    files.digests.append(digest)
    try:
        header, raw = read_header(folder, entry, raw, digest)
    except NotDicomError:
        _note_unusable(files, entry, "not_dicom", "are no DICOM files")
        return
    except (SourceError, MemoryError):  # no fault of the file
        raise
    except FileTooLargeError as error:
        files.findings.append(Finding("file_too_large", str(error)))
        return
    except Exception:  # noqa: BLE001 - damaged bytes fail in many ways
        detail = "A slice file is damaged or cut off in its header."
        files.findings.append(Finding("truncated_file", detail))
        return
    if _is_no_image(header):
        files.ignored["non-image DICOM"] += 1
        return
    files.headers.append(header)
    if header.has_pixel_data:
        _look_at_pixels(files, folder, entry, header, raw, on_slice)


def _look_at_pixels(
    files: StudyFiles,
    folder: StudyFolder,
    entry: FileEntry,
    header: SliceHeader,
    raw: bytes,
    on_slice: OnSlice | None,
) -> None:
    is_whole = len(raw) >= entry.size_bytes
    needs_decoding = not is_native(header.transfer_syntax_uid)
    try:
        if not is_whole and needs_decoding:
            # Only decoding shows whether a compressed image is whole.
            raw, is_whole = folder.source.read(entry.path), True
        if not is_whole:
            return
        decoded = DecodedSlice(raw, header)
        files.means_hu[header.file_name] = mean_hu(
            decoded.sample_hounsfield(_FOR_A_MEAN)
        )
        if on_slice is not None:
            on_slice(decoded)
    except (SourceError, MemoryError):  # no fault of the file
        raise
    except PixelDataError as error:
        files.undecodable[header.file_name] = str(error)
    except Exception as error:  # noqa: BLE001 - what a file does to us is its defect
        shown = safe_name(header.file_name)
        told = f"{shown} cannot be used: {type(error).__name__}."
        files.undecodable[header.file_name] = told


def _is_no_image(header: SliceHeader) -> bool:
    """Say whether this is a DICOM object that is no image, such as a report."""
    no_image = header.rows is None and not header.has_pixel_data
    return no_image and header.sop_class_uid != CT_IMAGE_STORAGE


def _note_unusable(files: StudyFiles, entry: FileEntry, code: str, what: str) -> None:
    """Count a file as defect unless it need not have been a slice."""
    if is_bystander(entry.name):
        files.ignored["not DICOM"] += 1
        return
    named = safe_name(entry.name)
    detail = f"Files that should be slices {what}, such as {named}."
    files.findings.append(Finding(code, detail))


def _note_too_large(files: StudyFiles, entry: FileEntry) -> None:
    if is_bystander(entry.name):
        files.ignored["not DICOM"] += 1
        return
    most = limits().file_bytes // MEGABYTE
    detail = f"{safe_name(entry.name)} has {entry.size_bytes // MEGABYTE:,} MB, "
    files.findings.append(
        Finding("file_too_large", f"{detail}more than {most:,} (CSFD_MAX_FILE_MB).")
    )
