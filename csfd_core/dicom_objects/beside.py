"""Result objects beside the JSON of a prediction, as ``csfd predict --dicom`` writes.

They bear the patient and the study of the input's files, as they belong beside them.
"""

import warnings
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from csfd_core.dicom_objects.headers import input_headers
from csfd_core.dicom_objects.kinds import ResultKind
from csfd_core.dicom_objects.results import make_results
from csfd_core.dicom_objects.source import ResultSource
from csfd_core.dicom_objects.stored import to_bytes
from csfd_core.errors import SettingsError
from csfd_core.inference.judgement import JudgedScan
from csfd_core.inference.segment import write_file

REPORT: Final = "_sr.dcm"  # ending of the file that every study has, written last
_ENDINGS: Final = {
    ResultKind.SEG: "_seg.dcm",
    ResultKind.KEY_IMAGE: "_key_image_{number}.dcm",
    ResultKind.PDF: "_summary.dcm",
    ResultKind.SR: REPORT,
}


def write_dicom(judged: JudgedScan) -> None:
    """Write the objects of a study, and remove those of an earlier call.

    Raises:
        SettingsError: If one cannot be written.
        SourceError: If a file of the input cannot be read any more.
    """
    source = ResultSource(
        headers=input_headers(judged.scan.folder, judged.scan.headers),
        mask=judged.study.mask,
        prediction=judged.note,
        grey=judged.study.grey,
        made_at=datetime.now(UTC).replace(microsecond=0),
    )
    with warnings.catch_warnings():  # of UIDs that are not quite valid
        warnings.simplefilter("ignore")
        made = make_results(source)
    _remove_earlier(judged.out, judged.name)
    numbers: Counter[ResultKind] = Counter()
    for one in sorted(made, key=lambda one: one.kind is ResultKind.SR):
        numbers[one.kind] += 1
        ending = _ENDINGS[one.kind].format(number=numbers[one.kind])
        write_file(judged.out / f"{judged.name}{ending}", to_bytes(one.dataset))


def _remove_earlier(out: Path, name: str) -> None:
    endings = (ending.format(number="*") for ending in _ENDINGS.values())
    for ending in endings:
        for path in out.glob(f"{name}{ending}"):
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                raise SettingsError(
                    f"Cannot replace {path}: {error.strerror}. Remove it, or name "
                    "another folder with --out."
                ) from error
