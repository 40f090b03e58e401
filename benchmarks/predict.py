"""How long does ``csfd predict`` take for a study, once its networks are open?

From the DICOM files to the JSON, by the general classifier, stage by stage; against the
loop that one would write by hand with the same networks, which reads with pydicom in
one thread and checks nothing. Then several studies in a row, where the next one is read
while the networks judge the one before.
"""

import json
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any, Final

import psutil

from benchmarks.harness import Result, in_turns, ratios, spread
from benchmarks.reading import loop_by_hand
from benchmarks.studies import LOSSLESS, UNCOMPRESSED, large_volume, write_copy
from csfd_core.classification.ensemble import Ensemble
from csfd_core.crops.study import MaskedStudy
from csfd_core.inference.judgement import judge_study
from csfd_core.inference.predict import predict_input
from csfd_core.inference.reading import Reading, reading_ahead
from csfd_core.inference.segment import find_vertebrae
from csfd_core.ingest.outcomes import Outcome
from csfd_core.ingest.scan import StudyScan, scan_study
from csfd_core.phantom.dicom_writer import PixelStyle
from csfd_core.phantom.volume import PhantomVolume
from csfd_core.registry.serving import open_general
from csfd_core.segmentation.model_store import open_model
from csfd_core.segmentation.predict import VertebraPredictor
from csfd_core.store.source import Source

SLICES: Final = 350
ROUNDS: Final = 2
IN_A_ROW: Final = 3  # studies
MOST_S: Final = {"uncompressed": 3.0, "jpeg_2000_lossless": 8.0}


def run() -> Result:
    """Predict one study uncompressed, and as lossless JPEG 2000."""
    volume = large_volume(SLICES)
    predictor = VertebraPredictor(open_model("builtin"))
    predictor.load()
    ensemble = open_general()
    with reading_ahead() as reading:
        measured = {
            name: _measure(volume, style, predictor, ensemble, reading)
            for name, style in zip(MOST_S, (UNCOMPRESSED, LOSSLESS), strict=True)
        }
    met = all(
        measured[name]["seconds"]["median"] <= most for name, most in MOST_S.items()
    )
    return Result(
        question="Seconds from the DICOM files of a study to its JSON",
        target=" and ".join(f"{name}: {most:.0f} s" for name, most in MOST_S.items()),
        met=met,
        data=f"{SLICES} slices of 512x512 of the full-profile phantom",
        measured={
            **measured,
            "alternative": "pydicom in one thread, then the same networks; no checks",
        },
    )


def _measure(
    volume: PhantomVolume,
    style: PixelStyle,
    predictor: VertebraPredictor,
    ensemble: Ensemble,
    reading: Reading,
) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as name:
        source, row = Path(name) / "one", Path(name) / "row"
        out = Path(name) / "out"
        uid = write_copy(source, volume, 0, style)
        for number in range(IN_A_ROW):
            write_copy(row, volume, number, style)
        (folder,) = Source(source).studies()
        (scan,) = scan_study(folder)
        ours = partial(_predict, source, out, predictor, ensemble, reading)
        images = source / "train_images" / uid
        by_hand = partial(_loop, images, scan, predictor, ensemble)
        seconds, loop = in_turns(ours, by_hand, ROUNDS)
        stages = json.loads((out / f"{uid}.json").read_text())["seconds"]
        begun, processor = time.perf_counter(), _processor_s()
        _predict(row, out, predictor, ensemble, reading)
        in_a_row = time.perf_counter() - begun
        processor = (_processor_s() - processor) / IN_A_ROW
    return {
        "seconds": spread(seconds, 2),
        "loop_s": spread(loop, 2),
        "loop_by_ours": ratios(loop, seconds),
        "stages_of_one_s": stages,
        "processor_s_of_one": round(processor, 2),
        "studies_per_minute": round(IN_A_ROW / in_a_row * 60, 1),
    }


def _processor_s() -> float:
    """Return the processor time of this process and of that which reads."""
    own = psutil.Process()
    times = [process.cpu_times() for process in (own, *own.children(recursive=True))]
    return float(sum(one.user + one.system for one in times))


def _predict(
    source: Path,
    out: Path,
    predictor: VertebraPredictor,
    ensemble: Ensemble,
    reading: Reading,
) -> None:
    done = predict_input(
        str(source), out, predictor, ensemble, lambda _: None, reading, again=True
    )
    assert {study.action for study in done} == {Outcome.PREDICTED}


def _loop(
    folder: Path, scan: StudyScan, predictor: VertebraPredictor, ensemble: Ensemble
) -> None:
    assert scan.geometry is not None
    grey = loop_by_hand(folder)
    found = find_vertebrae(scan, grey, predictor)
    judge_study(
        MaskedStudy(
            grey=grey,
            mask=found.mask,
            geometry=scan.geometry,
            levels=found.review.notes(),
        ),
        ensemble,
    )
