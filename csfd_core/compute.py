"""Keras on TensorFlow: imported quietly, repeatable, on what the machine has."""

import contextlib
import functools
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any


@contextlib.contextmanager
def computing(mixed_precision: bool = False) -> Iterator[None]:
    """Import Keras on TensorFlow, quietly, with repeatable arithmetic.

    Args:
        mixed_precision: Compute in half precision where there is a GPU; on a processor
            that is slower than single precision and is left out.
    """
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import keras
    import tensorflow as tf

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
    found: AbstractContextManager[Any] = _libraries().limit(limits=1, user_api="blas")
    return found


@functools.cache
def _libraries() -> Any:  # noqa: ANN401 - threadpoolctl has no types
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()


@contextlib.contextmanager
def all_devices() -> Iterator[None]:
    """Build models for every GPU of the machine, or of the cluster in TF_CONFIG."""
    import tensorflow as tf

    if os.environ.get("TF_CONFIG"):
        strategy = tf.distribute.MultiWorkerMirroredStrategy()
    elif len(tf.config.list_physical_devices("GPU")) > 1:
        strategy = tf.distribute.MirroredStrategy()
    else:
        yield
        return
    with strategy.scope():
        yield
