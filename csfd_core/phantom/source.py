"""A folder of phantom studies in the layout of the RSNA 2022 data set.

::

    OUT/train.csv, train_bounding_boxes.csv
    OUT/train_images/<StudyInstanceUID>/<instance number>.dcm
    OUT/segmentations/<StudyInstanceUID>.nii
    OUT/phantom.json             settings; they must stay the same
    OUT/.phantom/<index>.json    one record per finished study
"""

import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from csfd_core.errors import SettingsError
from csfd_core.phantom.config import PhantomConfig
from csfd_core.phantom.dicom_writer import draw_style, write_dicom_series
from csfd_core.phantom.mask_writer import write_mask
from csfd_core.phantom.streams import open_stream
from csfd_core.phantom.volume import PhantomVolume, build_phantom_volume
from csfd_core.vocabulary import LABEL_COLUMNS, OVERALL

_FORMAT: Final = 1  # of the phantoms; raise it when the same settings draw otherwise
_SETTINGS: Final = "phantom.json"
_RECORDS: Final = ".phantom"
_PER_CALL: Final = ("studies", "first")  # may differ between calls
_SINCE_2: Final = ("version", "foreign")  # settings that version 1 did not have
_BOX_COLUMNS: Final = ("StudyInstanceUID", "x", "y", "width", "height", "slice_number")


@dataclass(frozen=True, slots=True)
class PhantomStudy:
    """One written study."""

    index: int
    study_uid: str
    slice_count: int
    labels: dict[str, int]  # patient_overall, C1..C7
    fractures: dict[str, str]  # site by fractured level
    has_mask: bool
    boxes: tuple[tuple[float, ...], ...]  # x, y, width, height, slice number
    transfer_syntax_uid: str
    size_bytes: int


def write_phantom_source(
    out: Path,
    config: PhantomConfig,
    *,
    executor: Executor | None = None,
    on_study: Callable[[PhantomStudy], None] | None = None,
) -> list[PhantomStudy]:
    """Write the studies ``first`` .. ``first + studies - 1`` that are not there yet.

    Studies appear under their final name only when complete; the tables are replaced
    at the end and list every study of the folder.

    Args:
        out: New or empty folder, or one that an earlier call with the same settings
            (but for ``studies`` and ``first``) has written.
        config: What to draw.
        executor: Runs the studies; they are written one after the other without it.
        on_study: Called for each study of this call, in order of completion, kept ones
            first.

    Returns:
        The studies of this call by index.

    Raises:
        SettingsError: If ``out`` holds something else.
    """
    _claim(out, config)
    wanted = range(config.first, config.first + config.studies)
    done = {i: study for i in wanted if (study := _finished(out, i)) is not None}
    report = on_study or (lambda study: None)
    for study in done.values():
        report(study)
    missing = [i for i in wanted if i not in done]
    for study in _write_all(out, config, missing, executor):
        done[study.index] = study
        report(study)
    _write_tables(out)
    return [done[i] for i in wanted]


def _write_all(
    out: Path, config: PhantomConfig, indices: Iterable[int], executor: Executor | None
) -> Iterator[PhantomStudy]:
    if executor is None:
        for index in indices:
            yield write_study(out, config, index)
        return
    futures = [executor.submit(write_study, out, config, i) for i in indices]
    try:
        for future in as_completed(futures):
            yield future.result()
    finally:
        for future in futures:
            future.cancel()


def write_study(out: Path, config: PhantomConfig, index: int) -> PhantomStudy:
    """Paint one study and put it into a claimed folder."""
    volume = build_phantom_volume(config, index)
    uid = volume.plan.study_uid
    style = draw_style(
        open_stream(config.seed, index, "style"), config.compressed_share
    )
    partial = out / _RECORDS / f"partial-{index}"
    shutil.rmtree(partial, ignore_errors=True)
    images = partial / "images"
    images.mkdir(parents=True)
    size = write_dicom_series(volume, style, images)
    if volume.plan.has_mask:
        size += write_mask(volume, config.mask_orientation, partial / "mask.nii")
        target = _mask_path(out, uid)
        target.parent.mkdir(exist_ok=True)
        (partial / "mask.nii").replace(target)
    final = _images_path(out, uid)
    shutil.rmtree(final, ignore_errors=True)  # left without a record by a stopped run
    final.parent.mkdir(exist_ok=True)
    images.rename(final)
    shutil.rmtree(partial)
    study = _describe(volume, style.transfer_syntax_uid, size)
    _replace_text(_record_path(out, index), _to_json(asdict(study)))
    return study


def _describe(volume: PhantomVolume, syntax_uid: str, size_bytes: int) -> PhantomStudy:
    boxes: list[tuple[float, ...]] = []
    if volume.plan.has_boxes:
        boxes = [
            (b.x, b.y, b.width, b.height, float(b.slice_index + 1))
            for b in volume.boxes
        ]
    return PhantomStudy(
        index=volume.plan.index,
        study_uid=volume.plan.study_uid,
        slice_count=len(volume.hounsfield),
        labels={OVERALL: int(any(volume.labels.values())), **volume.labels},
        fractures=volume.fractures,
        has_mask=volume.plan.has_mask,
        boxes=tuple(boxes),
        transfer_syntax_uid=str(syntax_uid),
        size_bytes=size_bytes,
    )


def _claim(out: Path, config: PhantomConfig) -> None:
    """Make ``out`` a phantom folder of these settings, or raise."""
    settings = {k: v for k, v in asdict(config).items() if k not in _PER_CALL}
    if config.version == 1:  # whose folders name no version
        settings = {k: v for k, v in settings.items() if k not in _SINCE_2}
    text = _to_json({"format": _FORMAT, **settings})
    if out.exists() and not out.is_dir():
        raise SettingsError(f"{out} is a file. Name a folder for the phantoms.")
    path = out / _SETTINGS
    if path.is_file():
        there = path.read_text(encoding="utf-8")
        if there != text:
            raise SettingsError(
                f"{out} holds phantoms of other settings ({_difference(there, text)}). "
                "Name another folder, or repeat those settings to add studies."
            )
    elif out.is_dir() and any(out.iterdir()):
        raise SettingsError(
            f"{out} is not empty and holds no {_SETTINGS}, so it is no phantom folder. "
            "Name a new or an empty folder; nothing was written."
        )
    for name in ("train_images", "segmentations", _RECORDS):
        (out / name).mkdir(parents=True, exist_ok=True)
    _replace_text(path, text)


def _difference(there: str, wanted: str) -> str:
    try:
        old, new = json.loads(there), json.loads(wanted)
        names = sorted(k for k in old.keys() | new.keys() if old.get(k) != new.get(k))
    except (ValueError, AttributeError):
        return f"{_SETTINGS} cannot be read"
    return ", ".join(f"{k}: {old.get(k)!r} there, {new.get(k)!r} asked" for k in names)


def _finished(out: Path, index: int) -> PhantomStudy | None:
    """Return the record of a complete study; None if it must be written."""
    path = _record_path(out, index)
    if not path.is_file():
        return None
    study = _from_json(path.read_text(encoding="utf-8"))
    complete = _images_path(out, study.study_uid).is_dir() and (
        not study.has_mask or _mask_path(out, study.study_uid).is_file()
    )
    return study if complete else None


def _write_tables(out: Path) -> None:
    studies = sorted(
        (
            _from_json(p.read_text(encoding="utf-8"))
            for p in (out / _RECORDS).glob("*.json")
        ),
        key=lambda study: study.index,
    )
    rows: list[tuple[str, ...]] = [("StudyInstanceUID", *LABEL_COLUMNS)]
    boxes: list[tuple[str, ...]] = [_BOX_COLUMNS]
    for study in studies:
        labels = tuple(str(study.labels[name]) for name in LABEL_COLUMNS)
        rows.append((study.study_uid, *labels))
        for x, y, width, height, number in study.boxes:
            sides = tuple(f"{v:g}" for v in (x, y, width, height, number))
            boxes.append((study.study_uid, *sides))
    for name, table in (("train.csv", rows), ("train_bounding_boxes.csv", boxes)):
        _replace_text(out / name, "".join(",".join(row) + "\n" for row in table))


def _images_path(out: Path, study_uid: str) -> Path:
    return out / "train_images" / study_uid


def _mask_path(out: Path, study_uid: str) -> Path:
    return out / "segmentations" / f"{study_uid}.nii"


def _record_path(out: Path, index: int) -> Path:
    return out / _RECORDS / f"{index}.json"


def _to_json(content: dict[str, Any]) -> str:
    return json.dumps(content, indent=1, sort_keys=True) + "\n"


def _from_json(text: str) -> PhantomStudy:
    content = json.loads(text)
    content["boxes"] = tuple(tuple(box) for box in content["boxes"])
    return PhantomStudy(**content)


def _replace_text(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)
