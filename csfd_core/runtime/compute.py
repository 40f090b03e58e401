"""Keras on TensorFlow: imported quietly, repeatable, on what the machine has."""

import contextlib
import functools
import os
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import keras


@contextlib.contextmanager
def computing(mixed_precision: bool = False) -> Iterator[None]:
    """Import Keras on TensorFlow, quietly, with repeatable arithmetic.

    Args:
        mixed_precision: Compute in half precision where there is a GPU; on a processor
            that is slower than single precision and is left out.
    """
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with _notices_off():
        import keras
        import tensorflow as tf

    # It warns of every further network of the same kind, as there are many here.
    tf.get_logger().setLevel("ERROR")
    before = keras.mixed_precision.dtype_policy()
    has_gpu = bool(tf.config.list_physical_devices("GPU"))
    if mixed_precision and has_gpu:
        keras.mixed_precision.set_dtype_policy("mixed_float16")
    try:
        yield
    finally:
        keras.mixed_precision.set_dtype_policy(before)


def one_blas_thread() -> AbstractContextManager[Any]:
    """Let NumPy multiply matrices in one thread; TensorFlow's threads stay as they are.

    For many small products: the threads of OpenBLAS spin while they wait for each
    other, and where other processes want the cores too they wait long.
    """
    limited: AbstractContextManager[Any] = _libraries().limit(limits=1, user_api="blas")
    return limited


@functools.cache
def _libraries() -> Any:  # noqa: ANN401 - threadpoolctl has no types
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()


@contextlib.contextmanager
def _notices_off() -> Iterator[None]:
    """Keep off the terminal what TensorFlow's C++ says of itself while it loads.

    It writes to the file descriptor before its log level can be set. Errors are Python
    exceptions and come through.
    """
    if "tensorflow" in sys.modules:
        yield
        return
    sys.stderr.flush()
    stderr_copy = os.dup(2)
    try:
        with Path(os.devnull).open("wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
            yield
    finally:
        os.dup2(stderr_copy, 2)
        os.close(stderr_copy)


def predict_in_batches(
    model: "keras.Model", inputs: npt.NDArray[np.float32], size: int
) -> npt.NDArray[np.float32]:
    """Return a model's output, computed in batches of one size.

    The last batch is filled up: TensorFlow compiles a network anew for every shape.

    Args:
        model: With one output.
        inputs: Shape (N, ...).
        size: Of a batch.
    """
    parts = []
    for start in range(0, len(inputs), size):
        part = inputs[start : start + size]
        short = size - len(part)
        filled = np.concatenate([part, part[-1:].repeat(short, axis=0)])
        parts.append(np.asarray(model.predict_on_batch(filled))[: len(part)])
    return np.concatenate(parts).astype(np.float32, copy=False)
