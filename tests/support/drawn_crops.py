"""Builder: a store of tiny crops with fractures that are easy to see, and a classifier.

No DICOM and no segmentation: the crops are drawn. A vertebra is a disc; a fractured one
has a bright cross off its middle on one slice, which its box surrounds.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest

from csfd_core.classification import classifiers
from csfd_core.classification.classifier import Classifier, TrainingSet
from csfd_core.classification.config import ClassifierConfig
from csfd_core.classification.fit import fit_classifier, plan_classifier
from csfd_core.classification.manifest import Manifest, write_manifest
from csfd_core.classification.validation import Logits
from csfd_core.classification.vertebrae import Vertebra, read_vertebrae
from csfd_core.crops.cutting import CropConfig
from csfd_core.learning.checkpoint import Weights
from csfd_core.learning.loop import OnEpoch, Trained
from csfd_core.runtime.compute import computing
from csfd_core.store.crops import CropStore
from csfd_core.store.locations import Location
from csfd_core.store.metadata import STUDIES_COLUMNS
from csfd_core.store.notes import CropNote
from csfd_core.store.stores import Stores
from csfd_core.vocabulary import LEVEL_NAMES, OVERALL

CROPS = CropConfig(slices=2, neighbours=1, side_px=32, pixel_mm=2.0)
SIDE = CROPS.side_px
HEIGHTS_MM = np.array([0.0, 2.0])
# Every third study has a fracture, of a level that differs from one to the next.
Labels = Mapping[str, Sequence[int | None]]


def uid_of(index: int) -> str:
    return f"1.2.826.0.1.3680043.{index}"


def some_labels(count: int) -> dict[str, list[int | None]]:
    """Labels of C1 to C7 by study; two in three studies have a fracture."""
    return {
        uid_of(index): [int(index % 3 != 0 and index % 7 == at) for at in range(7)]
        for index in range(1, count + 1)
    }


def draw_vertebra(
    is_fractured: bool, rng: np.random.Generator, *, boxed: bool = True
) -> Vertebra:
    """A grey disc; a bright cross of 7 pixels on one of its slices if fractured."""
    rows, columns = np.mgrid[:SIDE, :SIDE]
    middle = (SIDE - 1) / 2
    disc = np.hypot(rows - middle, columns - middle) < SIDE * 0.38
    grey = np.where(disc, 110.0, 50.0) + rng.normal(0, 6, (2, 3, SIDE, SIDE))
    boxes = [np.empty((0, 4), np.float32)] * 2
    if is_fractured:
        at = int(rng.integers(2))
        row, column = rng.integers(SIDE // 2 - 6, SIDE // 2 + 7, size=2)
        grey[at, :, row, column - 3 : column + 4] = 250
        grey[at, :, row - 3 : row + 4, column] = 250
        edges = (row - 3.5, column - 3.5, row + 3.5, column + 3.5)
        boxes[at] = np.array([edges], np.float32)
    return Vertebra(
        images=np.clip(grey, 0, 255).astype(np.uint8),
        masks=np.repeat((disc * 255).astype(np.uint8)[None], 2, axis=0),
        heights_mm=HEIGHTS_MM,
        boxes=tuple(boxes) if boxed else None,
    )


def crop_rows(
    labels: Sequence[int | None],
    rng: np.random.Generator,
    levels: Sequence[str] = LEVEL_NAMES,
    shares: Mapping[str, float] | None = None,
) -> list[dict[str, Any]]:
    """Rows of the crop store for one study."""
    rows = []
    for name, label in zip(LEVEL_NAMES, labels, strict=True):
        vertebra = draw_vertebra(label == 1, rng)
        if name not in levels:
            continue
        for index, boxes in enumerate(vertebra.boxes or ()):
            rows.append(
                {
                    "level": name,
                    "crop_index": index,
                    "z_mm": HEIGHTS_MM[index],
                    "label": label,
                    "slice_label": None if label is None else int(boxes.size > 0),
                    "boxes": None if label is None else boxes.ravel().tolist(),
                    "visible_share": (shares or {}).get(name, 1.0),
                    "confidence": 0.9,
                    "fold": 0,
                    "is_test": False,
                    "image": vertebra.images[index].tobytes(),
                    "mask": vertebra.masks[index].tobytes(),
                }
            )
    return rows


def write_crops(
    stores: Stores, study_uid: str, rows: list[dict[str, Any]], **note: object
) -> None:
    own = {
        "study_uid": study_uid,
        "inputs": f"crops of {study_uid}",
        "crop": CROPS.to_note(),
        "model_id": "segmentation",
        "standing": "unseen",
        "levels": sorted({row["level"] for row in rows}),
    }
    stores.crops.write(study_uid, rows, CropNote.model_validate({**own, **note}))


def write_studies(
    stores: Stores,
    labels: Labels,
    patients: Mapping[str, str] | None = None,
    status: Mapping[str, str] | None = None,
) -> None:
    """Write the table of studies; each is a patient of its own unless told."""
    rows = [
        {
            "study_uid": uid,
            "status": (status or {}).get(uid, "good"),
            "patient_key": (patients or {}).get(uid),
            OVERALL: None if None in own else max(int(v or 0) for v in own),
            **dict(zip(LEVEL_NAMES, own, strict=True)),
        }
        for uid, own in labels.items()
    ]
    frame = pd.DataFrame(rows).astype(dict.fromkeys([OVERALL, *LEVEL_NAMES], "Int8"))
    missing = [name for name, _, _ in STUDIES_COLUMNS if name not in frame]
    empty = pd.DataFrame(None, index=frame.index, columns=missing, dtype=object)
    table = pd.concat([frame, empty], axis=1)
    stores.metadata.write_studies(table, "inputs", "phantom")


def write_store(folder: Path, count: int = 40) -> Stores:
    """A store with the table of studies and all their crops."""
    stores = Stores(Location(folder))
    labels = some_labels(count)
    write_studies(stores, labels)
    rng = np.random.default_rng(0)
    for uid, own in labels.items():
        write_crops(stores, uid, crop_rows(own, rng))
    return stores


def manifest_of(stores: Stores) -> Manifest:
    return write_manifest(stores, CROPS.to_note())


class BrightClassifier(Classifier):
    """Knows without a network: how bright the brightest pixels of the vertebra are.

    ``shift`` is its one weight: it is added to every logit. Training counts the
    fractures that it was shown into it, so that the test sees what reached it.
    """

    shift = 0.0

    def start(self) -> dict[str, Any]:
        return {"weights": "none", "digest": "bright"}

    def train(self, data: TrainingSet, on_epoch: OnEpoch | None = None) -> Trained:
        self.shift = float((data.training["label"] == 1).sum()) / 100
        row = {"epoch": 1.0, "loss": 0.5, "accuracy": 0.5, "val_loss": 0.4}
        row |= {"val_accuracy": 0.5, "val_auc": 0.5, "seconds": 0.1}
        if on_epoch is not None:
            on_epoch(row)
        return Trained(weights=self.get_weights(), history=[row], best_epoch=1)

    def stored_logits(self, crops: CropStore, rows: pd.DataFrame) -> Logits:
        found = pd.Series(np.nan, index=rows.index, dtype=float)
        for place, vertebra in read_vertebrae(crops, rows):
            found.loc[place] = self.logits([vertebra])[0]
        return found.to_numpy(dtype=float)

    def logits(self, vertebrae: Sequence[Vertebra]) -> Logits:
        return np.array([self._logit(v) for v in vertebrae], dtype=float)

    def _logit(self, vertebra: Vertebra) -> float:
        brightest = np.sort(vertebra.images, axis=None)[-20:].mean()
        return float(brightest - 180) / 20 + self.shift

    def heat(self, vertebra: Vertebra) -> npt.NDArray[np.float32]:
        return vertebra.images[:, 1].astype(np.float32) / 255

    def get_weights(self) -> Weights:
        return [np.array([self.shift])]

    def set_weights(self, weights: Weights) -> None:
        self.shift = float(weights[0][0])

    def keras_model(self) -> Any:
        """Return a layer in place of the network that it has not, and its input."""
        with computing():
            import keras

            inputs = keras.Input((1,))
            layer = keras.layers.Dense(1)
            return keras.Model(inputs, layer(inputs)), np.zeros((1, 1), np.float32)

    @property
    def parameters(self) -> int:
        return 1


def put_bright_classifier(patch: pytest.MonkeyPatch) -> None:
    """Let ``BrightClassifier`` go by the name of the basic CNN."""
    patch.setitem(classifiers.CLASSIFIERS, "basic_cnn", BrightClassifier)


def put_bright_classifiers(patch: pytest.MonkeyPatch) -> None:
    """Let ``BrightClassifier`` go by the names of both networks for patches."""
    for name in ("basic_cnn", "triplanar_cnn"):
        patch.setitem(classifiers.CLASSIFIERS, name, BrightClassifier)


def put_tiny_backbone(patch: pytest.MonkeyPatch) -> None:
    """Let ``tiny_backbone`` stand where Keras has ResNet50."""
    with computing():
        import keras
    patch.setattr(keras.applications, "ResNet50", tiny_backbone)


def tiny_backbone(
    include_top: bool, weights: str | None, input_shape: tuple[int, int, int]
) -> Any:
    """A network in place of a large one, with the arguments of keras.applications.

    Its last layer is named as the top block of ResNet50.
    """
    import keras

    assert not include_top
    assert weights is None
    inputs = keras.Input(input_shape)
    values = keras.layers.Conv2D(4, 3, strides=4, name="first")(inputs)
    values = keras.layers.BatchNormalization(name="norm")(values)
    return keras.Model(inputs, keras.layers.Conv2D(6, 3, name="conv5_block")(values))


def write_trained_store(folder: Path, name: str, folds: Sequence[int]) -> Stores:
    """A store whose bright classifier is trained for some folds."""
    stores = write_store(folder)
    with pytest.MonkeyPatch.context() as patch:
        put_bright_classifier(patch)
        manifest = manifest_of(stores)
        for fold in folds:
            config = ClassifierConfig(epochs=1, seed=fold)
            fit_classifier(stores, plan_classifier(name, fold, config, manifest))
    return stores
