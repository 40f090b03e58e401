"""The state of a training in one file, replaced in one step after every epoch."""

import hashlib
import io
import json
import tempfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt

from csfd_core.errors import StoreError

if TYPE_CHECKING:
    import keras

_FILE: Final = "last.npz"
_NOTE: Final = "note"
_FORMAT: Final = 2  # of the note; a state of another one is not taken up

Weights = Sequence[npt.NDArray[np.floating]]


def read_arrays(content: bytes, place: object) -> list[npt.NDArray[np.float32]]:
    """Return the arrays of a file of weights, in the order of their names.

    Args:
        content: Of the file.
        place: Where it lies, for the message.

    Raises:
        StoreError: If it is cut off, or no such file.
    """
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            return [arrays[name].astype(np.float32) for name in sorted(arrays.files)]
    except (OSError, ValueError, TypeError, EOFError, BadZipFile, zlib.error) as error:
        raise StoreError(
            f"{place} is no whole file of weights: cut off or damaged. Bring it back, "
            "train the model again, or, where it came with csfd, install csfd again."
        ) from error


def checkpoint_folder(root: object, inputs: str) -> Path:
    """Return where a running training keeps its state: on this machine's disk.

    Args:
        root: Location of the store that the training belongs to.
        inputs: Identity of all that the training is made from.
    """
    name = hashlib.sha256(f"{_FORMAT} {root} {inputs}".encode()).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / "csfd-training" / name


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Where a training that was cut off goes on: on this machine's disk."""

    folder: Path

    def write(
        self, model: "keras.Model", best: Weights, note: Mapping[str, Any]
    ) -> None:
        """Keep weights, optimizer, random state, the best weights and a JSON note."""
        arrays: dict[str, Any] = {}
        for group, values in (
            ("now", model.get_weights()),
            ("best", best),
            ("step", [np.asarray(v) for v in model.optimizer.variables]),
            ("seed", [np.asarray(v) for v in _random_state(model)]),
        ):
            arrays |= {f"{group}{i:04d}": value for i, value in enumerate(values)}
        arrays[_NOTE] = np.frombuffer(json.dumps(note).encode(), dtype=np.uint8)
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / _FILE
        temporary = path.with_suffix(".tmp.npz")
        np.savez(temporary, **arrays)
        temporary.replace(path)

    def restore(
        self, model: "keras.Model"
    ) -> tuple[list[npt.NDArray[np.floating]], dict[str, Any]] | None:
        """Put a compiled model into the kept state; return best weights and note.

        Returns ``None``, and changes nothing, where nothing was kept.
        """
        path = self.folder / _FILE
        if not path.exists():
            return None
        with np.load(path, allow_pickle=False) as arrays:
            names = sorted(arrays.files)

            def group(prefix: str) -> list[npt.NDArray[np.floating]]:
                return [arrays[n] for n in names if n.startswith(prefix) and n != _NOTE]

            note = json.loads(arrays[_NOTE].tobytes())
            model.set_weights(group("now"))
            for variables, stored in (
                (model.optimizer.variables, group("step")),
                (_random_state(model), group("seed")),
            ):
                for variable, value in zip(variables, stored, strict=True):
                    variable.assign(value)
            return group("best"), dict(note)


def _random_state(model: "keras.Model") -> list[Any]:
    """Return the variables of dropout and the like, which are not among the weights."""
    weights = {id(variable) for variable in model.weights}
    return [v for v in model.variables if id(v) not in weights]
