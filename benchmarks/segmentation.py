"""How long from the slices of a study to its vertebra mask, and a step of training?

The study is a phantom of 350 slices of 512x512 pixels in the slice store. Its mask is
made at that resolution by the model that comes with csfd, which is loaded before. The
alternative decodes the slices in full and brings the probabilities of all eight classes
to every voxel of the study; what the networks do is the same.

Steps of training are taken in processes of their own, for their memory, on real samples
of a phantom. The first step of a process also traces the graph.
"""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from benchmarks.harness import Result, in_turns, ratios, spread, timed
from benchmarks.studies import large_volume, tasks_of, write_copy
from csfd_core.evaluation.segmentation_metrics import dice_score
from csfd_core.ingest.convert import convert_study
from csfd_core.ingest.outcomes import Outcome
from csfd_core.phantom.volume import PhantomVolume
from csfd_core.runtime.compute import one_blas_thread
from csfd_core.segmentation.bundle import builtin_location, read_bundle
from csfd_core.segmentation.predict import VertebraPredictor
from csfd_core.segmentation.reading import read_reduced, reduce_slices
from csfd_core.store.locations import Location
from csfd_core.store.stores import Stores
from csfd_core.vocabulary import LEVELS

SLICES = 350
ROUNDS = 3
LONGEST_S = 5.0
STEPS = {"demo": 10, "full": 3}
Mask = npt.NDArray[np.uint8]
_CHILD = """
import json, sys, time
import numpy as np
from csfd_core.runtime.compute import computing
from csfd_core.segmentation.config import PROFILES
from csfd_core.pretraining.segmentation import phantom_volume
from csfd_core.segmentation.data import draw_sample, to_batch
from csfd_core.segmentation.training import Plan, compile_model

def peak():  # not ru_maxrss: a child inherits that of its parent
    lines = open("/proc/self/status").read().splitlines()
    return next(int(x.split()[1]) / 1000 for x in lines if x.startswith("VmHWM:"))

profile, steps = PROFILES[sys.argv[1]], int(sys.argv[2])
size, rng = profile.training.batch_size, np.random.default_rng(0)
volume = phantom_volume(seed=1, index=0)
draws, times, cpu, losses = [], [], [], []
with computing():
    model = compile_model(Plan(model=profile.model, training=profile.training))
    for _ in range(steps):
        start = time.perf_counter()
        samples = [draw_sample(volume, profile.model, rng, 1.0) for _ in range(size)]
        batch = to_batch(samples)
        draws.append((time.perf_counter() - start) / size)
        start, used = time.perf_counter(), time.process_time()
        losses.append(float(model.train_on_batch(*batch)[0]))
        times.append(time.perf_counter() - start)
        cpu.append(time.process_time() - used)
print(json.dumps({
    "shape_zyx": profile.model.segmenter.shape_zyx, "batch": size,
    "parameters": model.count_params(), "losses": losses, "draws": draws,
    "times": times, "cpu": cpu, "peak_mb": peak(),
}))
"""


def run() -> Result:
    """Predict one study in turns with the alternative, then take training steps."""
    volume = large_volume(SLICES)
    with tempfile.TemporaryDirectory() as name:
        source, store = Path(name) / "source", Path(name) / "store"
        study_uid = write_copy(source, volume, 0)
        (task,) = tasks_of(source, store)
        assert convert_study(task).action == Outcome.WRITTEN
        measured = _measure(Stores(Location(store)), study_uid, volume)
    training = {profile: _train(profile, steps) for profile, steps in STEPS.items()}
    median_s = measured["study_s"]["median"]
    return Result(
        question="Seconds from the slices of a study to its vertebra mask",
        target=f"at most {LONGEST_S} s on 2 cores with the model loaded, median "
        f"of {ROUNDS} rounds",
        met=median_s <= LONGEST_S,
        data=f"{SLICES} slices of 512x512 of the full-profile phantom, model builtin",
        measured={**measured, "training": training},
    )


def _measure(stores: Stores, study_uid: str, volume: PhantomVolume) -> dict[str, Any]:
    predictor = VertebraPredictor(read_bundle(builtin_location()))
    load_s = timed(predictor.load)
    parts: list[dict[str, float]] = []
    masks: dict[str, Mask] = {}

    def ours() -> None:
        start = time.perf_counter()
        reduced = read_reduced(stores.slices, study_uid, predictor.step_mm)
        read_s = time.perf_counter() - start
        prediction = predictor.predict(reduced)
        parts.append({"read": read_s, **prediction.seconds})
        masks["ours"] = prediction.mask

    def naive() -> None:
        with one_blas_thread():
            masks["naive"] = _predict_naively(stores, study_uid, predictor)

    times, naive_times = in_turns(ours, naive, ROUNDS)
    cpu_s = timed(ours, time.process_time)
    counted = parts[1 : ROUNDS + 1]  # neither the first, nor that of processor time
    return {
        "study_s": spread(times, 2),
        "study_processor_s": round(cpu_s, 2),
        "parts_s": {
            part: spread([own[part] for own in counted], 2) for part in counted[0]
        },
        "alternative": "slices decoded in full, all eight probabilities brought to "
        "every voxel with scipy.ndimage (order 1); the same networks",
        "alternative_s": spread(naive_times, 2),
        "ratio": ratios(naive_times, times),
        "mean_dice": {
            name: _mean_dice(mask, volume.mask) for name, mask in masks.items()
        },
        "dice_between_both": _mean_dice(masks["ours"], masks["naive"]),
        "load_s": round(load_s, 2),
    }


def _predict_naively(
    stores: Stores, study_uid: str, predictor: VertebraPredictor
) -> Mask:
    """Label every voxel of the study by the likeliest of all classes."""
    note = stores.slices.read_note(study_uid)
    assert note is not None
    planes = stores.slices.read_volume(study_uid)
    reduced = reduce_slices(planes, note.geometry, predictor.step_mm)
    centre, stretch = predictor._locate(reduced, predictor._find_spine(reduced))
    crop = predictor._segment(reduced, centre, stretch)
    classes = crop.probability.shape[-1]
    first = [
        (middle - (count - 1) / 2 * crop.step_mm) / crop.step_mm
        for middle, count in zip(
            crop.centre_mm, crop.probability.shape[:3], strict=True
        )
    ]
    scale = np.array(reduced.full_spacing_mm) / crop.step_mm
    labels = np.zeros(reduced.full_shape, dtype=np.uint8)
    highest = np.zeros(reduced.full_shape, dtype=np.float32)
    for label in range(classes):
        fine = ndimage.affine_transform(
            crop.probability[..., label],
            scale,
            offset=-np.array(first),
            output_shape=reduced.full_shape,
            order=1,
            cval=float(label == 0),
        )
        better = fine > highest
        labels[better] = label
        np.maximum(highest, fine, out=highest)
    return np.asarray(reduced.axes.turn_back(labels), dtype=np.uint8)


def _mean_dice(first: Mask, second: npt.NDArray[np.integer]) -> float:
    scores = [dice_score(first == level, second == level) for level in LEVELS]
    return round(float(np.nanmean(scores)), 3)


def _train(profile: str, steps: int) -> dict[str, Any]:
    child = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", _CHILD, profile, str(steps)],
        capture_output=True,
        check=True,
        cwd=Path(__file__).parent.parent,
    )
    report = json.loads(child.stdout)
    assert np.isfinite(report["losses"]).all()
    return {
        "shape_zyx": report["shape_zyx"],
        "batch": report["batch"],
        "parameters": report["parameters"],
        "steps": steps,
        "first_step_s": round(report["times"][0], 1),
        "step_s": spread(report["times"][1:], 2),
        "step_processor_s": spread(report["cpu"][1:], 2),
        "draw_sample_s": spread(report["draws"], 2),
        "peak_mb": round(report["peak_mb"]),
        "losses": [round(loss, 3) for loss in report["losses"]],
    }
