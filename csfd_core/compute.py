"""Keras on TensorFlow: imported quietly, repeatable, on what the machine has."""

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path


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

    before = keras.mixed_precision.dtype_policy()
    has_gpu = bool(tf.config.list_physical_devices("GPU"))
    if mixed_precision and has_gpu:
        keras.mixed_precision.set_dtype_policy("mixed_float16")
    try:
        yield
    finally:
        keras.mixed_precision.set_dtype_policy(before)


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
    kept = os.dup(2)
    try:
        with Path(os.devnull).open("wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
            yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


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
