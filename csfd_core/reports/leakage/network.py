"""The network that every protocol trains: small, and able to learn slices by heart.

Keras is imported when a network is built, never when this module is.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

from csfd_core.reports.leakage.config import AuditConfig
from csfd_core.reports.leakage.data import Images
from csfd_core.reports.leakage.protocols import ProtocolSplit, Rows
from csfd_core.runtime.compute import computing

if TYPE_CHECKING:
    import keras

Vector = npt.NDArray[np.float64]
OnStep = Callable[[int], None]

_FILTERS: Final = (16, 32, 64)
_UNITS: Final = 64
_SCORED_AT_ONCE: Final = 256  # slices


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Scored:
    """Probabilities of a fracture for the slices of each set, in their order."""

    training: Vector
    validation: Vector
    test: Vector


def build_network(side: int) -> "keras.Model":
    """Build the network: grey levels 0..255, (N, side, side, 1), in, logits (N, 1) out.

    It ends in a dense layer over all places rather than in their mean, so that it can
    tell one neck from another. ELU, since with ReLU some seeds fell silent and learnt
    nothing.
    """
    import keras

    layers = keras.layers
    inputs = keras.Input((side, side, 1))
    values = layers.Rescaling(1 / 128, offset=-1)(inputs)
    for filters in _FILTERS:
        values = layers.Conv2D(
            filters, 3, strides=2, padding="same", kernel_initializer="he_normal"
        )(values)
        values = layers.Activation("elu")(values)
    values = layers.LayerNormalization()(layers.Flatten()(values))
    values = layers.Dense(_UNITS, activation="elu")(values)
    return keras.Model(inputs, layers.Dense(1)(values), name="slices")


def train_and_score(
    split: ProtocolSplit,
    images: Images,
    labels: npt.NDArray[np.int64],
    config: AuditConfig,
    on_step: OnStep | None = None,
) -> Scored:
    """Train a new network on a protocol's training slices and apply it to all sets.

    The same split, images, labels and settings give the same numbers on one machine.
    The network is thrown away: some protocols train on patients of the locked test set.

    Args:
        split: Row numbers of ``images`` and ``labels``.
        images: Grey levels, shape (N, side, side).
        labels: 0 or 1, shape (N,).
        config: Seed and budget.
        on_step: Called after each step with the number of steps done.

    Raises:
        ValueError: If there is nothing to train on.
    """
    if not split.training.size:
        raise ValueError(f"The protocol {split.name!r} has no slices to train on.")
    with computing():
        import keras

        keras.utils.set_random_seed(config.seed)
        model = build_network(config.side)
        model.compile(
            keras.optimizers.Adam(
                keras.optimizers.schedules.CosineDecay(
                    config.learning_rate, config.steps, alpha=0.05
                ),
                clipnorm=1.0,
            ),
            loss=keras.losses.BinaryCrossentropy(from_logits=True),
            jit_compile=False,
        )
        batches = draw_batches(split.training, config)
        for step, rows in enumerate(batches, start=1):
            model.train_on_batch(_inputs(images, rows), labels[rows, None])
            if on_step is not None:
                on_step(step)
        return Scored(
            training=_apply(model, images, split.training),
            validation=_apply(model, images, split.validation),
            test=_apply(model, images, split.test),
        )


def draw_batches(training: Rows, config: AuditConfig) -> Iterator[Rows]:
    """Yield as many batches as there are steps; every slice once before any again."""
    rng = np.random.default_rng(config.seed)
    waiting = np.empty(0, dtype=np.intp)
    for _ in range(config.steps):
        while waiting.size < config.batch_size:
            waiting = np.concatenate([waiting, rng.permutation(training)])
        yield waiting[: config.batch_size]
        waiting = waiting[config.batch_size :]


def _inputs(images: Images, rows: Rows) -> npt.NDArray[np.float32]:
    return images[rows, :, :, None].astype(np.float32)


def _apply(model: "keras.Model", images: Images, rows: Rows) -> Vector:
    """Return the probability of each slice, shape (N,).

    The last batch is filled up: TensorFlow compiles a network anew for every shape.
    """
    parts = [np.empty(0)]
    for start in range(0, rows.size, _SCORED_AT_ONCE):
        part = rows[start : start + _SCORED_AT_ONCE]
        filled = np.resize(part, _SCORED_AT_ONCE)
        logits = np.asarray(model.predict_on_batch(_inputs(images, filled)))
        parts.append(logits[: part.size, 0])
    values = np.concatenate(parts).astype(np.float64)
    return np.asarray(1 / (1 + np.exp(-np.clip(values, -500, 500))))
