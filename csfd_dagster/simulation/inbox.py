"""Puts into the inbox what a week brings: studies, labels, corrections, damage."""

import json
import shutil
from collections.abc import Iterable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field, replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd

from csfd_core.phantom.config import PhantomConfig
from csfd_core.phantom.source import PhantomStudy, write_phantom_source
from csfd_core.store.layout import (
    BOXES_FILE,
    IMAGES_FOLDER,
    LABELS_FOLDER,
    PHANTOM_FILE,
)
from csfd_core.vocabulary import LEVEL_NAMES, OVERALL
from csfd_dagster.simulation.plan import Damage, SimulationConfig, Week

MONDAY: Final = date(2020, 1, 6)  # of week 0
READERS: Final = ("reader A", "reader B")
_MISSING: Final = 5  # slices, from the middle
_BROKEN_LEVELS: Final = 3  # said to be fractured in a whole study of a degraded week

# Wide gaps, all with boxes: fractures that the short trainings of a simulation can
# learn. The scores say nothing about the default phantoms.
_EASY: Final = PhantomConfig(
    studies=1,
    fracture_gap_mm=(2.0, 4.0),
    fracture_displacement_mm=(1.0, 4.0),
    boxed_share=1.0,
    compressed_share=0.0,
)


@dataclass(slots=True)
class Department:
    """A department that reads phantoms and puts them into an inbox.

    Attributes:
        root: Holds ``source`` (the start), ``inbox`` and ``pool`` (studies to come).
        config: Of the simulation.
        studies: Those that were painted, by number.
        misread: Those whose labels are wrong now.
    """

    root: Path
    config: SimulationConfig
    studies: dict[int, PhantomStudy] = field(default_factory=dict)
    misread: set[int] = field(default_factory=set)

    @property
    def source(self) -> Path:
        """Where the studies of the start are."""
        return self.root / "source"

    @property
    def inbox(self) -> Path:
        """Where later ones arrive."""
        return self.root / "inbox"

    @property
    def pool(self) -> Path:
        """Where studies wait for their week."""
        return self.root / "pool"

    def uids(self, numbers: Iterable[int]) -> set[str]:
        """Return the studies of some numbers."""
        return {self.studies[number].study_uid for number in numbers}

    def open_doors(self, executor: Executor | None = None) -> None:
        """Write the studies of the start: images, labels, boxes and some masks."""
        self._paint(self.source, range(self.config.start), executor)
        self.inbox.mkdir(parents=True, exist_ok=True)
        phantom = self.source / PHANTOM_FILE
        shutil.copy(phantom, self.inbox / PHANTOM_FILE)  # the same data, the same kind

    def bring(self, week: Week, executor: Executor | None = None) -> None:
        """Put into the inbox what a week brings; withdrawals come another way."""
        self._paint(self.pool, week.arrivals, executor)
        for number in week.arrivals:
            self._copy(number)
            self._label(number, week, is_new=True)
        for number, damage in week.damaged:
            self._damage(number, damage)
        if week.half_copied is not None:
            self._halve(week.half_copied)
        for number in (*week.repaired, *week.again):
            self._copy(number)
        if week.completed is not None:
            self._copy(week.completed)
        for number in week.corrected:
            self._label(number, week, is_new=False)
        self._write_boxes()

    def _paint(
        self, folder: Path, numbers: Sequence[int], executor: Executor | None
    ) -> None:
        config = replace(
            _EASY, studies=len(numbers), first=numbers[0], seed=self.config.seed
        )
        for study in write_phantom_source(folder, config, executor=executor):
            self.studies[study.index] = study

    def _images(self, folder: Path, number: int) -> Path:
        return folder / IMAGES_FOLDER / self.studies[number].study_uid

    def _copy(self, number: int) -> None:
        """Copy a study anew, as a person would: over what is there."""
        at = self.pool if number >= self.config.start else self.source
        target = self._images(self.inbox, number)
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(self._images(at, number), target, copy_function=shutil.copyfile)

    def _slices(self, number: int) -> list[Path]:
        files = self._images(self.inbox, number).iterdir()
        return sorted(files, key=lambda path: int(path.stem))

    def _damage(self, number: int, damage: Damage) -> None:
        slices = self._slices(number)
        middle = len(slices) // 2
        if damage == "missing_slices":
            for path in slices[middle : middle + _MISSING]:
                path.unlink()
        else:
            content = slices[middle].read_bytes()
            slices[middle].write_bytes(content[: len(content) // 4])

    def _halve(self, number: int) -> None:
        slices = self._slices(number)
        for path in slices[len(slices) // 2 :]:
            path.unlink()

    def _label(self, number: int, week: Week, *, is_new: bool) -> None:
        study = self.studies[number]
        labels = {name: study.labels[name] for name in LEVEL_NAMES}
        self.misread.discard(number)
        if is_new and (week.is_degraded or number in week.misread):
            self.misread.add(number)
            labels = wrong_labels(labels, np.random.default_rng([number, 11]))
        note: dict[str, Any] = {
            "study_uid": study.study_uid,
            "labels": {OVERALL: max(labels.values()), **labels},
            "reader": READERS[number % 2 if is_new else 1],
            "date": (MONDAY + timedelta(weeks=week.number)).isoformat(),
        }
        if number not in dict(week.damaged):  # whoever damages files counts none
            note["slices"] = study.slice_count
        path = self.inbox / LABELS_FOLDER / f"{study.study_uid}.json"
        path.parent.mkdir(exist_ok=True)
        new = path.with_suffix(".part")
        new.write_text(json.dumps(note, indent=1) + "\n", encoding="utf-8")
        new.replace(path)

    def _write_boxes(self) -> None:
        """Write the boxes of all arrivals; whoever misreads a study draws none."""
        boxes = pd.read_csv(self.pool / BOXES_FILE)
        wrong = self.uids(self.misread)
        boxes = boxes[~boxes["StudyInstanceUID"].isin(wrong)]
        boxes.to_csv(self.inbox / BOXES_FILE, index=False)


def wrong_labels(labels: dict[str, int], rng: np.random.Generator) -> dict[str, int]:
    """Return labels that are wrong: a whole study broken, a broken one whole."""
    if any(labels.values()):
        return dict.fromkeys(labels, 0)
    chosen = rng.choice(list(labels), _BROKEN_LEVELS, replace=False)
    return {name: int(name in chosen) for name in labels}
