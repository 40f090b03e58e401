"""Films of a study from skull base to upper back, as MP4 and as a small preview.

The MP4 files are H.264 in yuv420p, which every browser plays; the encoder is the
ffmpeg program that the imageio-ffmpeg package carries, so nothing is downloaded. The
preview is an animated WebP, small enough for a README. The same study gives the same
bytes.
"""

import io
import json
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from PIL import Image

from csfd_core.errors import SettingsError
from csfd_core.reports.eda.frames import FRAME_SIZE, FrameMaker, RgbFrame
from csfd_core.reports.eda.images import read_images
from csfd_core.store.locations import Location
from csfd_core.store.stores import Stores

FOLDER: Final = "film"
PLAIN: Final = f"{FOLDER}/plain.mp4"
OVERLAY: Final = f"{FOLDER}/overlay.mp4"
PREVIEW: Final = f"{FOLDER}/preview.webp"
_NOTE: Final = f"{FOLDER}/film.json"
_VERSION: Final = 1  # raised when older films must be made again
FRAMES_PER_S: Final = 20
_CRF: Final = 24
_PREVIEW_STRIDE: Final = 3  # every third frame, shown three times as long
_PREVIEW_BYTES: Final = 1_500_000
# Width in pixels and quality of the preview; the first that is small enough is taken.
_PREVIEW_SIZES: Final = ((432, 70), (360, 60), (288, 50), (216, 40))


@dataclass(frozen=True, slots=True, kw_only=True)
class FilmNote:
    """What was filmed; kept beside the films."""

    study_uid: str
    content_hash: str
    mask_hash: str | None
    frame_count: int
    version: int = _VERSION


@dataclass(frozen=True, slots=True, kw_only=True)
class Films:
    """The films of a study; ``overlay`` is ``None`` where it has no mask."""

    note: FilmNote
    plain: bytes
    overlay: bytes | None
    preview: bytes

    @property
    def has_mask(self) -> bool:
        """Whether the vertebrae are named and coloured."""
        return self.overlay is not None

    def files(self) -> dict[str, bytes]:
        """Return every film by its path, relative to the report."""
        films = {PLAIN: self.plain, PREVIEW: self.preview}
        if self.overlay is not None:
            films[OVERLAY] = self.overlay
        return films


def current_films(out: Location, stores: Stores, study_uid: str) -> tuple[Films, bool]:
    """Return the films of a study, made anew only where its content has changed.

    Args:
        out: Location of the report; the films lie in ``film/``.
        stores: Where the study is.
        study_uid: The study, which has slices in the store.

    Returns:
        The films, and whether they were made now.
    """
    slices = stores.slices.read_note(study_uid)
    mask = stores.masks.read_note(study_uid)
    content_hash = "" if slices is None else slices.content_hash
    mask_hash = None if mask is None else mask.mask_hash
    wanted = {
        "study_uid": study_uid,
        "content_hash": content_hash,
        "mask_hash": mask_hash,
        "version": _VERSION,
    }
    old = _read_films(out)
    if old is not None and wanted.items() <= asdict(old.note).items():
        return old, False
    films = make_films(stores, study_uid, content_hash, mask_hash)
    for path, content in films.files().items():
        out.write(path, content)
    if films.overlay is None:
        out.remove(OVERLAY)
    # Last: films are there when their note is.
    text = json.dumps(asdict(films.note), indent=1, sort_keys=True)
    out.write(_NOTE, f"{text}\n".encode())
    return films, True


def make_films(
    stores: Stores, study_uid: str, content_hash: str, mask_hash: str | None
) -> Films:
    """Film a study, plain and, where it has a mask, overlaid."""
    images = read_images(stores, study_uid)
    plain = FrameMaker(images, with_overlay=False)
    overlaid = FrameMaker(images, with_overlay=True)
    shown = plain if images.mask is None else overlaid
    return Films(
        note=FilmNote(
            study_uid=study_uid,
            content_hash=content_hash,
            mask_hash=mask_hash,
            frame_count=len(plain),
        ),
        plain=encode_mp4(plain.frames()),
        overlay=None if images.mask is None else encode_mp4(overlaid.frames()),
        preview=encode_preview(shown.frames()),
    )


def encode_mp4(frames: Iterator[RgbFrame]) -> bytes:
    """Encode RGB frames of ``FRAME_SIZE`` as H.264 in an MP4 file.

    Raises:
        SettingsError: If ffmpeg cannot encode them.
    """
    with tempfile.TemporaryDirectory(prefix="csfd-film-") as folder:
        path = Path(folder) / "film.mp4"
        errors = Path(folder) / "errors.txt"
        with errors.open("wb") as sink:
            process = subprocess.Popen(
                _ffmpeg_call(path), stdin=subprocess.PIPE, stderr=sink
            )
            with process:
                assert process.stdin is not None
                try:
                    for frame in frames:
                        process.stdin.write(frame.tobytes())
                    process.stdin.close()
                except BrokenPipeError:
                    pass  # its exit status tells more
                except BaseException:
                    process.kill()
                    raise
        if process.returncode:
            said = errors.read_text("utf-8", "replace").strip().splitlines()
            raise SettingsError(
                f"ffmpeg ended with status {process.returncode}: "
                f"{said[-1] if said else 'no message'} Set IMAGEIO_FFMPEG_EXE to an "
                "ffmpeg that has libx264."
            )
        return path.read_bytes()


def _ffmpeg_call(path: Path) -> list[str]:
    import imageio_ffmpeg

    height, width = FRAME_SIZE
    source = f"-f rawvideo -pix_fmt rgb24 -s {width}x{height} -r {FRAMES_PER_S} -i -"
    # BT.709 is what browsers take for granted. One thread, and no dates or versions in
    # the file: the same frames give the same bytes.
    colour = "-vf scale=out_color_matrix=bt709:out_range=tv -colorspace bt709 "
    colour += "-color_primaries bt709 -color_trc bt709 -pix_fmt yuv420p"
    codec = f"-an -c:v libx264 -preset medium -crf {_CRF} -threads 1"
    plain = "-map_metadata -1 -fflags +bitexact -flags:v +bitexact"
    options = f"{source} {codec} {colour} {plain} -movflags +faststart"
    program = imageio_ffmpeg.get_ffmpeg_exe()
    quiet = ["-hide_banner", "-loglevel", "error", "-y"]
    return [program, *quiet, *options.split(), str(path)]


def encode_preview(frames: Iterator[RgbFrame]) -> bytes:
    """Encode every third frame as an animated WebP of at most 1.5 MB, or nearly."""
    images = [
        Image.fromarray(frame)
        for rank, frame in enumerate(frames)
        if rank % _PREVIEW_STRIDE == 0
    ]
    content = b""
    for width, quality in _PREVIEW_SIZES:
        content = _to_webp(images, width, quality)
        if len(content) <= _PREVIEW_BYTES:
            break
    return content


def _to_webp(frames: list[Image.Image], width: int, quality: int) -> bytes:
    height = round(FRAME_SIZE[0] * width / FRAME_SIZE[1])
    small = [f.resize((width, height), Image.Resampling.LANCZOS) for f in frames]
    sink = io.BytesIO()
    small[0].save(
        sink,
        "WEBP",
        save_all=True,
        append_images=small[1:],
        duration=_PREVIEW_STRIDE * 1000 // FRAMES_PER_S,
        loop=0,
        quality=quality,
        method=4,
    )
    return sink.getvalue()


def _read_films(out: Location) -> Films | None:
    content = out.read_if_there(_NOTE)
    if content is None:
        return None
    try:
        note = FilmNote(**json.loads(content))
    except (ValueError, TypeError):  # of another version
        return None
    needed = [PLAIN, PREVIEW, *([OVERLAY] if note.mask_hash else [])]
    if not all(out.exists(path) for path in needed):
        return None
    return Films(
        note=note,
        plain=out.read(PLAIN),
        overlay=out.read(OVERLAY) if note.mask_hash else None,
        preview=out.read(PREVIEW),
    )
