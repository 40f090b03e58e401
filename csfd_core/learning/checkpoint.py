"""The state of a training in one file of its store, replaced in one step.

It lies in the store, not on the disk of the machine that trains, so that a training
that was killed goes on on another machine. Two processes that do the same training at
once replace each other's state by one that is as good.
"""

import hashlib
import io
import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt

from csfd_core.errors import StoreError
from csfd_core.store import paths
from csfd_core.store.locations import Location
from csfd_core.store.stores import Stores
from csfd_core.text import count

if TYPE_CHECKING:
    import keras

_STATE: Final = ".npz"
_STUDIES: Final = ".studies.json"
_NOTE: Final = "note"
_FORMAT: Final = 2  # of the note; a state of another one is not taken up

Weights = Sequence[npt.NDArray[np.floating]]


def read_arrays(content: bytes, path: object) -> list[npt.NDArray[np.float32]]:
    """Return the arrays of a file of weights, in the order of their names.

    Args:
        content: Of the file.
        path: Where it lies, for the message.

    Raises:
        StoreError: If it is cut off, or no such file.
    """
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            return [arrays[name].astype(np.float32) for name in sorted(arrays.files)]
    except (OSError, ValueError, TypeError, EOFError, BadZipFile, zlib.error) as error:
        raise StoreError(
            f"{path} is no whole file of weights: cut off or damaged. Bring it back, "
            "train the model again, or, where it came with csfd, install csfd again."
        ) from error


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Where a training that was cut off goes on.

    Attributes:
        location: Of the store, or another folder.
        training: What is trained, as ``basic_cnn-fold_0``.
        inputs: Identity of all that the training is made from.
        studies: That it learns from; kept beside the state, so that it can be removed
            with one of them.
        part: Of a training in several parts, as that of a head.
    """

    location: Location
    training: str
    inputs: str = ""
    studies: Sequence[str] = ()
    part: str = ""

    @property
    def path(self) -> str:
        """Where the state lies, below the location."""
        return f"{self._stem}{self.part}{_STATE}"

    @property
    def _stem(self) -> str:
        digest = hashlib.sha256(f"{_FORMAT} {self.inputs}".encode()).hexdigest()[:16]
        return f"{paths.CHECKPOINTS}/{self.training}-{digest}"

    def of_part(self, name: str) -> "Checkpoint":
        """Return the state of a part of this training."""
        return replace(self, part=f".{name}")

    @property
    def exists(self) -> bool:
        """Say whether a state is kept."""
        return self.location.exists(self.path)

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
        sink = io.BytesIO()
        np.savez(sink, **arrays)
        studies = f"{self._stem}{_STUDIES}"
        if not self.location.exists(studies):  # first, so that no state is without it
            text = json.dumps(sorted(self.studies))
            self.location.write(studies, text.encode())
        self.location.write(self.path, sink.getvalue())

    def restore(
        self, model: "keras.Model"
    ) -> tuple[list[npt.NDArray[np.floating]], dict[str, Any]] | None:
        """Put a compiled model into the kept state; return best weights and note.

        Returns ``None``, and changes nothing, where nothing was kept, or a state that
        does not fit, as one that other versions of the libraries have written.
        """
        if not self.exists:
            return None
        try:
            content = io.BytesIO(self.location.read(self.path))
            with np.load(content, allow_pickle=False) as file:
                arrays = {name: file[name] for name in sorted(file.files)}
            note = dict(json.loads(arrays.pop(_NOTE).tobytes()))
        except (ValueError, KeyError, EOFError, BadZipFile, zlib.error):
            return None  # cut off, on a disk that was full or lost its power

        def group(prefix: str) -> list[npt.NDArray[np.floating]]:
            return [value for name, value in arrays.items() if name.startswith(prefix)]

        weights = model.get_weights()
        state = (
            (model.optimizer.variables, group("step")),
            (_random_state(model), group("seed")),
        )
        fitting = [(weights, group("now")), (weights, group("best")), *state]
        if not all(_is_alike(*pair) for pair in fitting):
            return None
        model.set_weights(group("now"))
        for variables, stored in state:
            for variable, value in zip(variables, stored, strict=True):
                variable.assign(value)
        return group("best"), note

    def remove(self) -> None:
        """Remove what was kept of this training, and of earlier ones of its kind."""
        for entry in self.location.entries(paths.CHECKPOINTS):
            if entry.name.startswith(f"{self.training}-"):
                self.location.remove(entry.path)


def require_not_withdrawn(stores: Stores, checkpoint: Checkpoint) -> None:
    """Require that no study was withdrawn that a training learns from.

    Raises:
        StoreError: If one was; what was kept of the training is removed.
    """
    if withdrawn := stores.withdrawn.study_uids() & set(checkpoint.studies):
        checkpoint.remove()
        told = count(len(withdrawn), "study", "was", "were")
        raise StoreError(
            f"{told} withdrawn while {checkpoint.training} was trained on it. "
            "Materialize the model again: it will learn without it."
        )


def learning_from(location: Location, study_uid: str) -> list[str]:
    """Return the files of trainings under way that learn from a study.

    Of each training the list of its studies is the last.
    """
    files = []
    entries = location.entries(paths.CHECKPOINTS)
    for listed in entries:
        stem = listed.path.removesuffix(_STUDIES)
        if stem == listed.path:
            continue
        if study_uid in json.loads(location.read(listed.path)):
            states = (e.path for e in entries if e.path.startswith(f"{stem}."))
            files += [path for path in states if path != listed.path]
            files.append(listed.path)
    return files


def _is_alike(ours: Sequence[Any], stored: Sequence[Any]) -> bool:
    return [tuple(v.shape) for v in ours] == [tuple(v.shape) for v in stored]


def _random_state(model: "keras.Model") -> list[Any]:
    """Return the variables of dropout and the like, which are not among the weights."""
    weights = {id(variable) for variable in model.weights}
    return [v for v in model.variables if id(v) not in weights]
