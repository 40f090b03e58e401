"""The one-page summary: whose it is, what it says, and that it is one page."""

import re
import subprocess
import sys
import zlib
from datetime import UTC, datetime

import numpy as np
import pytest
from support.dicom_studies import STUDY_UID, bone_disc, neck_mask
from support.reviews import API, PREDICTION, sign
from support.web import WebUnderTest

from csfd_core.dicom.geometry import VolumeGeometry
from csfd_core.reports import summary_pdf
from csfd_core.reports.summary_pdf import NO_REPORT, SignedLine, Summary
from csfd_core.store.notes import LevelNote, PredictedMaskNote
from csfd_core.vocabulary import LEVEL_NAMES
from csfd_core.web.review.summary import column_of


def words_of(summary: Summary, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the text of a page as it is handed to whoever draws it."""
    from matplotlib.figure import Figure

    told: list[str] = []
    real = Figure.text

    def text(self: Figure, x: float, y: float, s: str, **how: object) -> object:
        told.append(s)
        assert 0 < y < 1
        return real(self, x, y, s, **how)

    monkeypatch.setattr(Figure, "text", text)
    content = summary_pdf.summary_pdf(summary)
    assert pages_of(content) == 1
    return " ".join(told)


def pages_of(pdf: bytes) -> int:
    assert pdf.startswith(b"%PDF-")
    assert pdf.rstrip().endswith(b"%%EOF")
    inside = b"".join(
        zlib.decompress(stream)
        for stream in re.findall(rb"stream\r?\n(x.*?)\r?\nendstream", pdf, re.DOTALL)
        if stream[:1] == b"x"
    )
    assert inside
    return len(re.findall(rb"/Type\s*/Page\b", pdf))


def summary(signed: list[SignedLine]) -> Summary:
    return Summary(
        study_uid=STUDY_UID,
        prediction=PREDICTION,
        signed=signed,
        column=None,
        made_at=datetime(2026, 11, 27, tzinfo=UTC),
    )


def test_it_says_what_it_is_not_and_what_it_rests_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told = words_of(summary([]), monkeypatch)
    for words in (
        STUDY_UID,
        "This page is no report",
        "Any fracture: 0.10, below the operating point 0.40. Rests on C1 to C6",
        "0.82",
        "above 0.31",
        "not assessed",
        "C7 was not assessed",
        "No reader has signed",
    ):
        assert words in told
    assert "not a medical device" in NO_REPORT


def test_it_names_who_has_signed_and_how_they_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    levels: dict[str, str | None] = dict.fromkeys(LEVEL_NAMES, "whole")
    at = datetime(2026, 11, 27, 9, 30, tzinfo=UTC)
    signed = [
        SignedLine(
            reader=f"reader{number}",
            signed_at=at,
            saw_ai=number % 2 == 0,
            levels=levels | {"C4": "fractured"},
        )
        for number in range(8)
    ]
    told = words_of(summary(signed), monkeypatch)
    assert "reader0, 2026-11-27 09:30 UTC, read with the model's answer" in told
    assert "reader1, 2026-11-27 09:30 UTC, read blind: C4 fractured." in told
    assert "And 2 more readers." in told


@pytest.mark.usefixtures("study")
def test_it_is_sent_as_a_file(web: WebUnderTest) -> None:
    sign(web.client)
    answer = web.client.get(f"{API}/summary.pdf")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/pdf"
    assert f"{STUDY_UID}_summary.pdf" in answer.headers["content-disposition"]
    assert pages_of(answer.content) == 1


@pytest.mark.usefixtures("study")
def test_the_column_is_cut_where_it_is(web: WebUnderTest) -> None:
    stores = web.services.stores
    note = stores.slices.read_note(STUDY_UID)
    assert note is not None
    mask, geometry = neck_mask(), note.geometry
    stores.predicted_masks.write(
        STUDY_UID, mask, _mask_note(mask, geometry, note.content_hash)
    )
    column = column_of(stores, STUDY_UID)
    assert column is not None
    assert column.grey.shape[0] == len(mask)
    # The bone of the drawn neck: bright where its disc is, at the places told.
    for name, (down, back) in column.places_mm.items():
        index, row = round(down / 2.0), round(back / 1.5)
        assert column.grey[index, row] > 130, name
        whole = bone_disc(index, len(mask), 64)
        assert whole[:, 26].any()
    web.client.get(f"{API}/summary.pdf").raise_for_status()


def test_matplotlib_is_loaded_only_when_it_draws() -> None:
    code = (
        "import sys, csfd_core.web.review.api;"
        "sys.exit(any(n in sys.modules for n in ('matplotlib', 'tensorflow')))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, timeout=120)
    assert done.returncode == 0


def _mask_note(
    mask: np.ndarray, geometry: VolumeGeometry, content_hash: str
) -> PredictedMaskNote:
    levels = {}
    for label, name in enumerate(LEVEL_NAMES, start=1):
        z, y, x = (float(axis.mean()) for axis in np.nonzero(mask == label))
        levels[name] = LevelNote(
            volume_ml=5.0,
            confidence=0.9,
            is_cut=False,
            centre_zyx_mm=(z * 2.0, y * 1.5, x * 1.5),
        )
    return PredictedMaskNote(
        study_uid=STUDY_UID,
        content_hash=content_hash,
        shape_zyx=geometry.shape_zyx,
        spacing_zyx_mm=geometry.spacing_zyx_mm,
        affine_lps=geometry.affine_lps,
        z_extent_mm=geometry.z_extent_mm,
        z_descending=geometry.z_descending,
        format=1,
        model_id="m",
        fold=0,
        standing="unseen",
        levels=levels,
        flags=(),
    )
