"""A process that keeps the models in memory, and predicts studies on request.

``csfd predictor`` runs it. Whoever makes a step asks it over a socket that only its
user may open, one line of JSON each way; where it does not answer, is of another csfd
or serves another store, they load the models themselves: the same numbers, only later.
"""

import json
import os
import socket
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, fields
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import numpy as np

from csfd_core.classification.ensemble import Ensemble
from csfd_core.classification.vertebrae import Vertebra
from csfd_core.crops.cutting import CropConfig
from csfd_core.dicom.grids import Axes, Reduced
from csfd_core.errors import CsfdError, SettingsError
from csfd_core.inference.predict import StoredPredictor
from csfd_core.ingest.outcomes import Outcome, StudyOutcome, make_all
from csfd_core.registry.serving import may_judge, open_serving, serving_version
from csfd_core.runtime.compute import one_blas_thread
from csfd_core.segmentation.masks import MaskMaker, usable_cards
from csfd_core.settings import Settings, WebSettings
from csfd_core.store.locations import Location
from csfd_core.store.stores import Stores
from csfd_core.vocabulary import LEVEL_NAMES, is_uid

MASKS: Final = "vertebra_masks"
PREDICTIONS: Final = "study_predictions"

_LARGEST: Final = 64 * 2**10  # bytes of a message
_REQUEST_S: Final = 5.0  # for a request to come in whole
_ANSWER_S: Final = 120.0  # for the answer; others may be before it
_WAITING: Final = 16  # connections
_ANYBODY: Final = "1.2"  # a study that no model has seen
_WARMING: Final = (96, 64, 64)  # voxels of 6 mm: larger than the smallest neck


class Predictor:
    """Segmentation and classifier of a store; opened anew when these have changed."""

    def __init__(self, stores: Stores, tracking_uri: str = "") -> None:
        """Take the store, and MLflow's backend; nothing is opened yet."""
        self._stores = stores
        self._uri = tracking_uri
        self._maker: MaskMaker | None = None
        self._judge: StoredPredictor | None = None
        self._judge_version = ""

    def warm_up(self) -> None:
        """Open the models, and let them look at nothing, so that no study waits."""
        with one_blas_thread():
            self._masks().warm_up(_empty_scan(), _ANYBODY)
            if may_judge(self._stores):
                self._predictions()

    def make(self, step: str, study_uid: str) -> StudyOutcome | None:
        """Make a step of a study; ``None`` where no model can."""
        if step == PREDICTIONS and not may_judge(self._stores):
            return None

        def attempt(uid: str) -> StudyOutcome:
            maker = self._masks() if step == MASKS else self._predictions()
            with one_blas_thread():
                return maker.make(uid)

        (outcome,) = make_all(attempt, [study_uid])
        return outcome

    def _masks(self) -> MaskMaker:
        wanted = [card.model_id for card in usable_cards(self._stores).values()]
        if self._maker is None or self._maker.model_ids != wanted:
            self._maker = MaskMaker(self._stores)
        return self._maker

    def _predictions(self) -> StoredPredictor:
        wanted = serving_version(self._stores)
        if self._judge is None or self._judge_version != wanted:
            ensemble = open_serving(self._stores, self._uri)
            _look_at_nothing(ensemble)
            self._judge = StoredPredictor(self._stores, lambda: ensemble)
            self._judge_version = wanted
        return self._judge


def serve(predictor: Predictor, stores: Stores, path: Path) -> None:
    """Answer requests at a socket, one after the other, until interrupted."""
    path.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:
        mask = os.umask(0o177)
        try:
            server.bind(str(path))
        finally:
            os.umask(mask)
        server.listen(_WAITING)
        while True:
            connection, _ = server.accept()
            with connection, suppress(OSError):  # who asked may have gone
                answer_one(connection, predictor, stores)


def answer_one(connection: socket.socket, predictor: Predictor, stores: Stores) -> None:
    """Read one request and answer it; one that cannot be used is declined.

    Raises:
        OSError: If who asks is gone, or too slow.
    """
    line = _read_line(connection, time.monotonic() + _REQUEST_S)
    if not line:
        return
    asked = _request_of(line, stores)
    outcome = predictor.make(*asked) if asked else None
    told = {} if outcome is None else asdict(outcome)
    connection.settimeout(_REQUEST_S)
    connection.sendall(json.dumps(told).encode() + b"\n")


def ask_predictor(stores: Stores, step: str, study_uid: str) -> StudyOutcome | None:
    """Let the predictor make a step of a study.

    Args:
        stores: That it must serve.
        step: ``MASKS`` or ``PREDICTIONS``.
        study_uid: The study.

    Returns:
        ``None`` where nobody answers who can.
    """
    path = WebSettings.read().predictor_socket
    if not path:
        return None
    request = {
        "step": step,
        "study_uid": study_uid,
        "store": stores.root.url,
        "version": version("csfd"),
    }
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
            client.settimeout(_REQUEST_S)
            client.connect(path)
            client.sendall(json.dumps(request).encode() + b"\n")
            line = _read_line(client, time.monotonic() + _ANSWER_S)
        return _outcome_of(json.loads(line), study_uid)
    except (OSError, ValueError, TypeError, KeyError):
        return None


def _read_line(connection: socket.socket, deadline: float) -> bytes:
    """Return what comes up to the end of the line; nothing where it is not whole."""
    read = b""
    while not read.endswith(b"\n"):
        left = deadline - time.monotonic()
        if left <= 0 or len(read) > _LARGEST:
            return b""
        connection.settimeout(left)
        part = connection.recv(_LARGEST)
        if not part:
            return b""
        read += part
    return read if len(read) <= _LARGEST else b""


def _request_of(line: bytes, stores: Stores) -> tuple[str, str] | None:
    try:
        asked = json.loads(line)
        step, study_uid = asked["step"], asked["study_uid"]
        is_ours = (asked["store"], asked["version"]) == (
            stores.root.url,
            version("csfd"),
        )
    except (ValueError, TypeError, KeyError):
        return None
    is_valid = (
        step in (MASKS, PREDICTIONS)
        and isinstance(study_uid, str)
        and is_uid(study_uid)
    )
    return (step, study_uid) if is_ours and is_valid else None


def _outcome_of(told: Mapping[str, Any], study_uid: str) -> StudyOutcome | None:
    if told.get("study_uid") != study_uid:  # it was declined
        return None
    names = {field.name for field in fields(StudyOutcome)}
    values: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in told.items()
        if name in names
    }
    return StudyOutcome(**{**values, "action": Outcome(values["action"])})


def _empty_scan() -> Reduced:
    """Return a scan of air, larger than the grids of the networks.

    They are traced for any size once they have seen two.
    """
    z, y, x = _WARMING
    return Reduced(
        grey=np.zeros(_WARMING, dtype=np.uint8),
        factors=(1.0, 1.0, 1.0),
        full_shape=(z, y, x),
        full_spacing_mm=(6.0, 6.0, 6.0),
        axes=Axes((0, 1, 2), (False, False, False)),
    )


def _look_at_nothing(ensemble: Ensemble) -> None:
    crop: CropConfig = ensemble.crop
    side = (crop.side_px, crop.side_px)
    vertebra = Vertebra(
        images=np.zeros((crop.slices, crop.channels, *side), dtype=np.uint8),
        masks=np.full((crop.slices, *side), 255, dtype=np.uint8),
        heights_mm=np.arange(crop.slices, dtype=np.float64),
        boxes=None,
    )
    ensemble.look(dict.fromkeys(LEVEL_NAMES, vertebra))


def main() -> int:
    """Serve the store of the environment; return the exit status."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    try:
        path = WebSettings.read().predictor_socket
        if not path:
            raise SettingsError("Name a socket in CSFD_PREDICTOR_SOCKET.")
        settings = Settings.read()
        stores = Stores(Location(settings.store))
        predictor = Predictor(stores, settings.mlflow_tracking_uri)
        predictor.warm_up()
        with suppress(KeyboardInterrupt):
            serve(predictor, stores, Path(path))
    except CsfdError as error:
        sys.stderr.write(f"csfd: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
