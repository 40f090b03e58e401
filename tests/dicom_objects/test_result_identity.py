"""Whose objects they are: patient and study of the slices, byte for byte, and UIDs."""

import io
import logging
import shutil
import subprocess
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import (
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)
from support.dicom_studies import STUDY_UID
from support.result_objects import (
    MADE_AT,
    headers,
    prediction,
    result_source,
    validator_errors,
)

from csfd_core.deid.writing import Encoder, file_meta
from csfd_core.dicom_objects.results import ResultObject, make_results, make_signed
from csfd_core.dicom_objects.source import SignedReview
from csfd_core.dicom_objects.stored import to_bytes
from csfd_core.vocabulary import is_uid

NAME, IDENTIFIER, DESCRIPTION, REFERRER = (
    0x0010_0010,
    0x0010_0020,
    0x0008_1030,
    0x0008_0090,
)
CHARACTER_SET: Final = 0x0008_0005


@dataclass(frozen=True)
class Written:
    """A name as a scanner writes it, and how pydicom reads it."""

    character_set: bytes
    name: bytes
    read: str


NAMES = {
    "japanese": Written(
        b"\\ISO 2022 IR 87",
        b"Yamada^Tarou=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B",
        "Yamada^Tarou=山田^太郎",
    ),
    "korean": Written(
        b"\\ISO 2022 IR 149",
        b"Hong^Gildong=\x1b$)C\xfb\xf3^\x1b$)C\xd1\xce\xd4\xd7",
        "Hong^Gildong=洪^吉洞",
    ),
    "cyrillic": Written(b"ISO_IR 144", "Люкceмбypг".encode("iso8859-5"), "Люкceмбypг"),
    "chinese": Written(b"GB18030", "Wang^XiaoDong=王^小东".encode("gb18030"), ""),
    "western": Written(b"ISO_IR 100", "Buc^Jérôme".encode("latin-1"), "Buc^Jérôme"),
    "unicode": Written(b"ISO_IR 192", "Müller^Äußerst".encode(), "Müller^Äußerst"),
    "of no stated set": Written(b"", "Müller^X".encode("latin-1"), ""),
}


def as_read(edits: dict[int, tuple[bytes, bytes]], syntax: str) -> list[Dataset]:
    """The headers of a neck as they are read from files of a transfer syntax.

    The patient is written as raw bytes, by no library that could correct them.
    """
    found = []
    encoder = Encoder(syntax)
    for one in headers():
        meta = file_meta(one.SOPClassUID, one.SOPInstanceUID, syntax)
        sink = io.BytesIO()
        plain = Dataset()
        plain.update({tag: one[tag] for tag in one.keys() if int(tag) not in edits})  # noqa: SIM118
        plain.save_as(
            sink,
            implicit_vr=syntax == ImplicitVRLittleEndian,
            little_endian=syntax != ExplicitVRBigEndian,
        )
        content = _merged(sink.getvalue(), edits, encoder, syntax)
        found.append(dcmread(io.BytesIO(meta + content), stop_before_pixels=True))
    return found


def _merged(
    content: bytes, edits: dict[int, tuple[bytes, bytes]], encoder: Encoder, syntax: str
) -> bytes:
    """Put elements among those of a data set, where their tags belong."""
    plain = dcmread(
        io.BytesIO(file_meta("1.2", "1.2", syntax) + content), stop_before_pixels=True
    )
    before = b""
    for tag in sorted({*map(int, plain.keys()), *edits}):
        if tag in edits:
            before += encoder.element(tag, *edits[tag])
        else:
            element = plain.get_item(tag)
            vr = (getattr(element, "VR", None) or plain[tag].VR).encode()
            value = element.value
            before += encoder.element(tag, vr, value)
    return before


def named(written: Written, syntax: str = ExplicitVRLittleEndian) -> list[Dataset]:
    edits = {
        NAME: (b"PN", written.name),
        REFERRER: (b"PN", written.name),
        DESCRIPTION: (b"LO", written.name.replace(b"^", b" ").replace(b"=", b" ")),
    }
    if written.character_set:
        edits[CHARACTER_SET] = (b"CS", written.character_set)
    return as_read(edits, syntax)


def raw_value(path: Path, tag: int) -> bytes:
    """Return the bytes of an element as they lie in a file."""
    value = dcmread(path, stop_before_pixels=True).get_item(tag).value
    assert isinstance(value, bytes)
    return value.rstrip(b" \0")


def written(objects: list[ResultObject], folder: Path) -> list[Path]:
    paths = [folder / f"{number}.dcm" for number in range(len(objects))]
    for path, one in zip(paths, objects, strict=True):
        path.write_bytes(to_bytes(one.dataset))
    return paths


WRITTEN = [
    *((script, ExplicitVRLittleEndian) for script in NAMES),
    ("japanese", ImplicitVRLittleEndian),
    ("korean", ExplicitVRBigEndian),
]


@pytest.mark.parametrize(("script", "syntax"), WRITTEN)
def test_names_of_any_script_are_the_same_byte_for_byte(
    tmp_path: Path, script: str, syntax: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    name = NAMES[script]
    source = result_source(headers=named(name, syntax))
    objects = make_results(source)
    assert len(objects) == 4
    for path in written(objects, tmp_path):
        assert raw_value(path, NAME) == name.name.rstrip()
        assert raw_value(path, REFERRER) == name.name.rstrip()
        found = dcmread(path)
        stated = found.get("SpecificCharacterSet", "")
        told = stated if isinstance(stated, str) else "\\".join(stated)
        assert told.encode() == name.character_set
        if name.read:
            assert str(found.PatientName) == name.read
    for word in name.name.decode("latin-1").split("^"):
        assert word not in caplog.text


@pytest.mark.skipif(shutil.which("dcmdump") is None, reason="needs dcmtk")
def test_dcmtk_reads_the_same_name(tmp_path: Path) -> None:
    source = result_source(headers=named(NAMES["cyrillic"]))
    for path in written(make_results(source), tmp_path):
        done = subprocess.run(
            ["dcmdump", "+U8", "+P", "0010,0010", str(path)],
            capture_output=True,
            text=True,
            check=True,
        )
        assert NAMES["cyrillic"].read in done.stdout
        assert validator_errors(path) == []


def test_what_the_standard_wants_of_patient_and_study_is_always_there(
    tmp_path: Path,
) -> None:
    stack = headers()
    wanted = {
        "StudyDate",
        "StudyTime",
        "AccessionNumber",
        "ReferringPhysicianName",
        "PatientName",
        "PatientID",
        "PatientBirthDate",
        "PatientSex",
        "StudyID",
    }
    for one in stack:
        for keyword in wanted:
            if keyword in one:
                delattr(one, keyword)
    for path in written(make_results(result_source(headers=stack)), tmp_path):
        found = dcmread(path)
        assert {keyword for keyword in wanted if keyword in found} == wanted
        assert not any(found[keyword].value for keyword in wanted)
        assert validator_errors(path) == []


def test_values_that_the_standard_forbids_are_kept_as_the_archive_has_them(
    tmp_path: Path,
) -> None:
    stack = as_read(
        {
            0x0010_0040: (b"CS", b"weiblich"),
            0x0010_0030: (b"DA", b"1970.01.01"),
            IDENTIFIER: (b"LO", b"P" * 70),
            0x0008_0050: (b"SH", b"Accession Number-2026"),
            NAME: (b"PN", b"No^Name^At^All^Here^Six"),
        },
        ExplicitVRLittleEndian,
    )
    for path in written(make_results(result_source(headers=stack)), tmp_path):
        assert raw_value(path, 0x0010_0040) == b"weiblich"
        assert raw_value(path, 0x0010_0030) == b"1970.01.01"
        assert raw_value(path, IDENTIFIER) == b"P" * 70
        assert raw_value(path, NAME) == b"No^Name^At^All^Here^Six"


def test_all_objects_belong_to_the_study_and_say_who_made_them() -> None:
    local = MADE_AT.astimezone()
    for one in make_results(result_source()):
        found = one.dataset
        assert found.StudyInstanceUID == STUDY_UID
        assert found.PatientID == f"patient-of-{STUDY_UID}"
        assert (found.StudyDate, found.StudyID) == ("20260102", "17")
        assert (found.Manufacturer, found.ManufacturerModelName) == ("csfd", "csfd")
        assert found.SeriesNumber > 9000
        assert found.SeriesDescription.startswith("csfd ")
        assert str(found.InstanceCreationDate) == local.strftime("%Y%m%d")
        assert str(found.InstanceCreationTime).startswith(local.strftime("%H%M%S"))


def test_a_second_run_makes_the_same_objects_byte_for_byte() -> None:
    first, second = make_results(result_source()), make_results(result_source())
    assert [to_bytes(one.dataset) for one in first] == [
        to_bytes(one.dataset) for one in second
    ]


def uids(objects: list[ResultObject]) -> set[str]:
    """Return the UIDs of objects and series."""
    return {uid for one in objects for uid in (one.sop_uid, one.series_uid)}


def test_each_object_has_a_series_of_its_own_and_uids_that_are_valid() -> None:
    objects = make_results(result_source())
    assert len(uids(objects)) == 8
    assert all(is_uid(uid) and uid.startswith("2.25.") for uid in uids(objects))


def test_another_identity_of_the_study_has_objects_of_its_own() -> None:
    stack = headers()
    for one in stack:
        one.StudyInstanceUID = "1.2.3.4"
    others = make_results(result_source(headers=stack))
    assert not uids(others) & uids(make_results(result_source()))


def test_another_model_has_objects_of_its_own() -> None:
    others = make_results(result_source(prediction=prediction(model_ids=["drawn-9"])))
    assert not uids(others) & uids(make_results(result_source()))


def test_a_mask_of_other_slices_is_refused() -> None:
    with pytest.raises(ValueError, match="as many slices"):
        result_source(headers=headers(3))
    with pytest.raises(ValueError, match="size of the slices"):
        result_source(headers=headers(24, 32))


@pytest.mark.parametrize("script", ["japanese", "western", "of no stated set"])
def test_beside_a_readers_name_in_another_script_the_patients_is_still_read(
    tmp_path: Path, script: str
) -> None:
    review = SignedReview(
        reader="Иван Ильич",
        signed_at=datetime(2026, 11, 28, tzinfo=UTC),
        saw_ai=False,
        levels={"C5": "fractured"},
        comment="Überprüft.",
    )
    name = NAMES[script]
    made = make_signed(result_source(headers=named(name)), review)
    (path,) = written([made], tmp_path)
    found = dcmread(path)
    assert found.SpecificCharacterSet == "ISO_IR 192"
    read = name.read or name.name.decode("latin-1")
    assert str(found.PatientName) == read
    assert found.StudyDescription == read.replace("^", " ").replace("=", " ")
    assert "Иван Ильич^".encode() in path.read_bytes()
    assert validator_errors(path) == []
