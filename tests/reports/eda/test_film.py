"""The film: read again with ffmpeg, and compared with what was drawn."""

import io
import shutil
import subprocess
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image
from support.dicom_studies import SLICE_MM, SLICES, neck_mask
from support.eda_source import MASKED, PLAIN

from csfd_core.errors import SettingsError
from csfd_core.reports.eda import film
from csfd_core.reports.eda.film import (
    OVERLAY,
    PREVIEW,
    Films,
    current_films,
    encode_mp4,
)
from csfd_core.reports.eda.film import (
    PLAIN as PLAIN_FILM,
)
from csfd_core.reports.eda.frames import FRAME_SIZE, FrameMaker
from csfd_core.reports.eda.images import StudyImages, read_images
from csfd_core.store.locations import Location
from csfd_core.store.stores import Stores

EXTENT_MM = (SLICES - 1) * SLICE_MM


@pytest.fixture
def films(filmed: Path, tmp_path: Path, stores: Stores) -> Films:
    """The films of a study, which lie in ``out``."""
    out = Location(shutil.copytree(filmed, tmp_path / "out"))
    found, is_new = current_films(out, stores, MASKED)
    assert not is_new
    return found


def decode(content: bytes, folder: Path) -> npt.NDArray[np.uint8]:
    """Return the frames of an MP4, shape (N, H, W, 3)."""
    path = folder / "decoded.mp4"
    path.write_bytes(content)
    call = [imageio_ffmpeg.get_ffmpeg_exe(), "-loglevel", "error", "-i", str(path)]
    call += ["-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    raw = subprocess.run(call, capture_output=True, check=True).stdout
    return np.frombuffer(raw, np.uint8).reshape(-1, *FRAME_SIZE, 3)


def test_film_has_one_frame_per_millimetre(films: Films, tmp_path: Path) -> None:
    assert films.note.frame_count == int(EXTENT_MM) + 1
    assert films.overlay is not None
    for content in (films.plain, films.overlay):
        assert len(decode(content, tmp_path)) == films.note.frame_count


def test_browsers_can_play_the_film(films: Films, tmp_path: Path) -> None:
    path = tmp_path / "film.mp4"
    path.write_bytes(films.plain)
    call = [imageio_ffmpeg.get_ffmpeg_exe(), "-hide_banner", "-i", str(path)]
    told = subprocess.run(call, capture_output=True, text=True, check=False).stderr
    assert "h264" in told
    assert "yuv420p" in told
    assert f"{FRAME_SIZE[1]}x{FRAME_SIZE[0]}" in told
    assert FRAME_SIZE[0] % 2 == FRAME_SIZE[1] % 2 == 0
    # The index stands in front, so that a browser can start before it has all.
    assert films.plain.index(b"moov") < films.plain.index(b"mdat")


@pytest.mark.slow
def test_overlay_colours_the_mask_and_nothing_else(
    films: Films, stores: Stores, tmp_path: Path
) -> None:
    assert films.overlay is not None
    plain = decode(films.plain, tmp_path).astype(int)
    overlaid = decode(films.overlay, tmp_path).astype(int)
    rank = 20
    square = slice(0, FRAME_SIZE[0])  # the slice; beside it is the side view
    changed = np.abs(plain[rank, :, square] - overlaid[rank, :, square]).max(axis=2)
    maker = FrameMaker(read_images(stores, MASKED), with_overlay=True)
    mask = maker.mask_at(float(rank))
    assert mask is not None
    inside = np.kron(mask > 0, np.ones((8, 8))).astype(bool)
    assert inside.shape == changed.shape
    core = inside & np.roll(inside, 12, axis=(0, 1)) & np.roll(inside, -12, axis=(0, 1))
    assert core.any()
    assert np.median(changed[core]) > 25
    rows = np.flatnonzero(inside.any(axis=1))
    far = np.ones_like(inside)
    far[max(0, rows[0] - 40) : rows[-1] + 40] = False
    assert changed[far].max() < 12


def test_frames_without_vertebrae_differ_in_the_side_view_only(
    stores: Stores,
) -> None:
    images = read_images(stores, MASKED)
    assert not neck_mask()[0].any()
    plain = next(FrameMaker(images, with_overlay=False).frames())
    overlaid = next(FrameMaker(images, with_overlay=True).frames())
    side = FRAME_SIZE[0]
    np.testing.assert_array_equal(plain[:, :side], overlaid[:, :side])
    assert (plain[:, side:] != overlaid[:, side:]).any()


def test_frames_between_slices_are_interpolated() -> None:
    volume = np.zeros((2, 16, 16), dtype=np.uint8)
    volume[1] = 200
    images = StudyImages(
        study_uid=MASKED,
        volume=volume,
        mask=None,
        z_mm=np.array([0.0, -4.0]),
        spacing_zyx_mm=(4.0, 1.0, 1.0),
        rows_to_back=True,
    )
    frames = list(FrameMaker(images, with_overlay=False).frames())
    assert [int(frame[256, 256, 0]) for frame in frames] == [0, 50, 100, 150, 200]


def test_pixels_that_are_not_square_keep_their_shape() -> None:
    images = StudyImages(
        study_uid=MASKED,
        volume=np.full((3, 20, 10), 255, dtype=np.uint8),
        mask=None,
        z_mm=np.array([0.0, -1.0, -2.0]),
        spacing_zyx_mm=(1.0, 0.5, 2.0),  # 10 mm high, 20 mm wide
        rows_to_back=True,
    )
    frame = next(FrameMaker(images, with_overlay=False).frames())
    lit = frame[:, : FRAME_SIZE[0], 0] > 128
    assert lit.any(axis=0).sum() == 512
    assert lit.any(axis=1).sum() == 256


def test_preview_moves_and_is_small(films: Films) -> None:
    preview = Image.open(io.BytesIO(films.preview))
    assert preview.format == "WEBP"
    assert preview.n_frames == -(-films.note.frame_count // 3)
    assert len(films.preview) < 2_000_000


def test_preview_shrinks_until_it_is_small_enough(
    stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    frames = FrameMaker(read_images(stores, MASKED), with_overlay=True)
    usual = film.encode_preview(frames.frames())
    monkeypatch.setattr(film, "_PREVIEW_BYTES", 10)
    smallest = Image.open(io.BytesIO(film.encode_preview(frames.frames())))
    assert smallest.width < Image.open(io.BytesIO(usual)).width


@pytest.mark.slow
def test_same_study_gives_the_same_bytes(
    films: Films, tmp_path: Path, stores: Stores
) -> None:
    again, is_new = current_films(Location(tmp_path / "other"), stores, MASKED)
    assert is_new
    assert again == films


@pytest.mark.slow
def test_film_is_made_again_only_when_its_study_changes(
    films: Films, tmp_path: Path, stores: Stores
) -> None:
    out = Location(tmp_path / "out")
    kept, is_new = current_films(out, stores, MASKED)
    assert not is_new
    assert kept == films
    other, is_new = current_films(out, stores, PLAIN)
    assert is_new
    assert other.note.study_uid == PLAIN


def test_study_without_mask_has_a_plain_film_only(
    films: Films, tmp_path: Path, stores: Stores
) -> None:
    assert films.has_mask
    out = Location(tmp_path / "out")
    assert out.exists(OVERLAY)
    other, _ = current_films(out, stores, PLAIN)
    assert other.overlay is None
    assert not out.exists(OVERLAY)
    assert out.exists(PLAIN_FILM)
    assert out.exists(PREVIEW)


@pytest.mark.slow
def test_lost_or_foreign_note_makes_the_film_again(
    films: Films, tmp_path: Path, stores: Stores
) -> None:
    (tmp_path / "out" / "film" / "film.json").write_text('{"other": 1}')
    assert current_films(Location(tmp_path / "out"), stores, MASKED)[1]


def test_failing_encoder_tells_what_to_do(
    tmp_path: Path, stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "ffmpeg"
    program.write_text("#!/bin/sh\necho 'no such codec' >&2\nexit 3\n")
    program.chmod(0o755)
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(program))
    frames = FrameMaker(read_images(stores, PLAIN), with_overlay=False)
    with pytest.raises(SettingsError, match="status 3: no such codec Set IMAGEIO"):
        encode_mp4(frames.frames())
