"""Where the weights of a backbone come from: random, ImageNet, or a file.

One is never silently taken for another. What was loaded is identified by a digest.
"""

import hashlib
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from zipfile import BadZipFile

import numpy as np

from csfd_core.classification.config import IMAGENET, NONE
from csfd_core.errors import SettingsError

if TYPE_CHECKING:
    import keras

_DRAWN: Final = "none-2"  # changes with how random weights are drawn


def require_weights(weights: str) -> str:
    """Return a choice of weights if it can be one.

    Raises:
        SettingsError: If it is neither ``none`` nor ``imagenet`` nor a file.
    """
    if weights in (NONE, IMAGENET):
        return weights
    path = Path(weights).expanduser()
    if not path.is_file():
        raise SettingsError(
            f"There is no weights file {weights}. Use imagenet, none, or the path of a "
            "Keras .h5 or .weights.h5 file without top layers."
        )
    return weights


def load_backbone(application: str, weights: str, side_px: int, seed: int) -> Any:  # noqa: ANN401
    """Build a backbone of ``keras.applications`` without top and pooling.

    Args:
        application: Its name there, such as ``ResNet50``.
        weights: ``none``, ``imagenet`` or a file.
        side_px: Height and width of its input; three channels.
        seed: Of random weights.

    Raises:
        SettingsError: If the weights cannot be had or belong to another network.
    """
    import keras

    require_weights(weights)
    build = getattr(keras.applications, application)
    shape = (side_px, side_px, 3)
    if weights == IMAGENET:
        try:
            return build(include_top=False, weights="imagenet", input_shape=shape)
        except Exception as error:  # noqa: BLE001 - Keras raises a bare Exception
            raise SettingsError(
                f"The ImageNet weights of {application} could not be downloaded "
                f"({type(error).__name__}). Connect to the network once, name a file "
                "with the weights in CSFD_WEIGHTS, or set CSFD_WEIGHTS=none."
            ) from error
    model = build(include_top=False, weights=None, input_shape=shape)
    if weights == NONE:
        _draw_weights(model, seed)
    else:
        _load_file(model, Path(weights).expanduser(), application)
    return model


def file_digest(weights: str) -> str:
    """Identify a choice of weights without opening them: a file by its content."""
    if weights == NONE:
        return _DRAWN
    path = Path(weights).expanduser()
    if not path.is_file():
        return weights
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest_of(model: "keras.Model") -> str:
    """Identify weights by their values."""
    digest = hashlib.sha256()
    for value in model.get_weights():
        digest.update(str(value.shape).encode())
        digest.update(np.ascontiguousarray(value, dtype=np.float32).tobytes())
    return digest.hexdigest()


def _draw_weights(model: "keras.Model", seed: int) -> None:
    """Draw a network's random weights anew, each by a seed of its own.

    Keras takes their seeds from Python's global generator. In a server or a Dask worker
    other threads draw from that as well, and the weights would be others each time.
    """
    layers = [layer for layer in model.layers if hasattr(layer, "kernel")]
    seeds = np.random.SeedSequence(seed).generate_state(len(layers))
    for layer, layer_seed in zip(layers, seeds.tolist(), strict=True):
        is_by_channel = hasattr(layer, "depthwise_initializer")
        name = "depthwise_initializer" if is_by_channel else "kernel_initializer"
        used = getattr(layer, name)
        drawn = type(used).from_config({**used.get_config(), "seed": layer_seed})
        layer.kernel.assign(drawn(layer.kernel.shape))


def _load_file(model: "keras.Model", path: Path, application: str) -> None:
    try:
        with warnings.catch_warnings():
            # Keras may leave layers random that a file does not hold, and only warn.
            warnings.filterwarnings("error", "Skipping", UserWarning)
            model.load_weights(path)
    except (ValueError, OSError, KeyError, BadZipFile, UserWarning) as error:
        reason = " ".join(str(error).split())[:300]
        raise SettingsError(
            f"{path.name} does not hold the weights of {application} without top "
            f"layers: {reason}"
        ) from error
