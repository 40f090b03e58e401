"""Ensembles that are kept as they are: copies named after their content.

Training writes ``models/classification/<model>/fold_<k>`` anew. What serves must not
change with it, so the folds of a candidate are copied to
``models/champion/<digest>/<model>/fold_<k>``. ``ensemble.json`` beside them, written
last, names every file with its SHA-256. The digest is that of the list of files: the
same ensemble is kept once, and a file that was touched is found out.
"""

import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from csfd_core.classification.card import ClassifierCard
from csfd_core.classification.classifier_store import (
    CARD,
    PREDICTIONS,
    WEIGHTS,
    ClassifierStore,
    FoldResult,
)
from csfd_core.data_kind import DataKind
from csfd_core.errors import SourceError, StoreError
from csfd_core.learning.splits import learnt_from
from csfd_core.store import paths
from csfd_core.store.notes import Note
from csfd_core.store.parquet import read_note
from csfd_core.store.stores import Stores

NOTE: Final = "ensemble.json"
_DIGEST: Final = re.compile("[0-9a-f]{16}")


class FrozenEnsemble(Note):
    """The trained folds of a classifier as they were when they were frozen."""

    digest: str  # of the list of files, as they were when they were frozen
    model: str  # name in the registry of backbones
    folds: tuple[int, ...]
    model_ids: tuple[str, ...]
    inputs: tuple[str, ...]  # identity of what each fold was trained from
    manifests: tuple[str, ...]  # digests of the manifests they were trained on
    data_kind: DataKind
    code_versions: tuple[str, ...]
    files: Mapping[str, str]  # SHA-256 by path below the folder
    rewritten: Mapping[str, str] = {}  # that of files from which a study was taken out

    @property
    def present(self) -> dict[str, str]:
        """Return the SHA-256 of each file as it is now."""
        return {**self.files, **self.rewritten}

    @property
    def folder(self) -> str:
        """Return where it lies below the store's root."""
        return folder_of(self.digest)

    def results(self, stores: Stores) -> list[FoldResult]:
        """Return its folds without their weights.

        Raises:
            StoreError: If one is missing.
        """
        models = ClassifierStore(stores.root, self.folder)
        return [models.result(self.model, fold) for fold in self.folds]


def folder_of(digest: str) -> str:
    """Return where an ensemble lies below the store's root.

    Raises:
        StoreError: If it is no digest.
    """
    if not _DIGEST.fullmatch(digest):
        raise StoreError(f"{digest!r} is no digest of a frozen ensemble.")
    return f"{paths.FROZEN_ENSEMBLES}/{digest}"


def freeze(stores: Stores, model: str) -> FrozenEnsemble:
    """Copy the trained folds of a classifier to a place that nothing writes to again.

    Copying the same files again changes nothing, and mends a copy that was damaged.

    Raises:
        StoreError: If the classifier has no fold, or a fold is being written.
    """
    source = ClassifierStore(stores.root)
    folds = source.folds(model)
    if not folds:
        raise StoreError(
            f"The store has no trained {model}. Materialize {model} first."
        )
    contents: dict[str, bytes] = {}
    cards = []
    for fold in folds:
        fold_files = _read_fold(source, model, fold)
        cards.append(ClassifierCard.from_json(fold_files[CARD]))
        contents |= {f"{model}/fold_{fold}/{name}": c for name, c in fold_files.items()}
    files = {path: _sha256(content) for path, content in sorted(contents.items())}
    frozen = _rewritten_to(stores, files) or FrozenEnsemble(
        digest=_digest_of(files),
        model=model,
        folds=tuple(folds),
        model_ids=tuple(card.model_id for card in cards),
        inputs=tuple(card.inputs for card in cards),
        manifests=tuple(sorted({card.manifest for card in cards})),
        data_kind=DataKind.joined(card.data_kind for card in cards),
        code_versions=tuple(sorted({str(card.code_version) for card in cards})),
        files=files,
    )
    location = stores.root.join(frozen.folder)
    if damages(stores, frozen.digest):
        for path, content in contents.items():
            location.write(path, content)
        location.write(NOTE, frozen.to_bytes())
    return frozen


def read_frozen(stores: Stores, digest: str) -> FrozenEnsemble:
    """Return a frozen ensemble by its digest.

    Raises:
        StoreError: If the store has none of that digest.
    """
    path = f"{folder_of(digest)}/{NOTE}"
    content = stores.root.read_if_there(path)
    if content is None:
        raise StoreError(
            f"The store {stores.root} has no frozen ensemble {digest}. Bring "
            f"{folder_of(digest)} back from a copy of the store."
        )
    return FrozenEnsemble.read(json.loads(content), path)


def damages(stores: Stores, digest: str) -> list[str]:
    """Return what is not as it was frozen, a sentence each; nothing: all is whole."""
    try:
        frozen = read_frozen(stores, digest)
    except (StoreError, ValueError, KeyError, TypeError):
        return [f"{folder_of(digest)}/{NOTE} is missing or cannot be read."]
    if _digest_of(frozen.files) != digest:
        return [f"{frozen.folder}/{NOTE} lists other files than it did."]
    problems = []
    for path, expected in frozen.present.items():
        try:
            content = stores.root.read(f"{frozen.folder}/{path}")
        except SourceError:
            problems.append(f"{frozen.folder}/{path} is missing or cannot be read.")
            continue
        if _sha256(content) != expected:
            problems.append(f"{frozen.folder}/{path} is not what was frozen.")
    return problems


def frozen_digests(stores: Stores) -> list[str]:
    """Return the digest of every frozen ensemble, also of one that was cut off."""
    names = stores.root.folders(paths.FROZEN_ENSEMBLES)
    return [name for name in names if _DIGEST.fullmatch(name)]


def rewrite(stores: Stores, digest: str, change: Callable[[str, bytes], bytes]) -> None:
    """Change what files of a frozen ensemble say; its digest stays what it was.

    What was cut off is finished by doing it again.

    Args:
        stores: Where it lies.
        digest: Of the ensemble.
        change: Takes the path and the content of a file, returns its new content.
    """
    frozen = _read_if_whole(stores, digest)
    if frozen is None:
        return  # damaged: nothing to keep in step
    location = stores.root.join(frozen.folder)
    before = {path: location.read(path) for path in frozen.files}
    after = {path: change(path, content) for path, content in before.items()}
    changed = {path for path in before if after[path] != before[path]}
    if not changed:
        return
    rewritten = {path: _sha256(after[path]) for path in sorted(changed)}
    note = frozen.model_copy(update={"rewritten": {**frozen.rewritten, **rewritten}})
    location.write(NOTE, note.to_bytes())
    for path in sorted(changed):
        location.write(path, after[path])


def studies_learnt_from(results: Sequence[FoldResult]) -> set[str]:
    """Return the studies that some fold was trained, stopped or calibrated on."""
    return learnt_from(result.card for result in results)


def _read_fold(source: ClassifierStore, model: str, fold: int) -> dict[str, bytes]:
    """Read the files of a fold that belong together."""
    location = source.of_fold(model, fold)
    text = location.read(CARD)
    card = ClassifierCard.from_json(text)
    weights, predictions = (card.file_name(kind) for kind in (WEIGHTS, PREDICTIONS))
    files = {
        CARD: text,
        **{name: location.read(name) for name in (weights, predictions)},
    }
    is_whole = (
        # The files of an older csfd had the names of those that they replaced.
        (card.files_mark or location.read(CARD) == text)
        and read_note(location, predictions)["model_id"] == card.model_id
        # Older cards do not say.
        and card.weights_sha256 in (None, _sha256(files[weights]))
    )
    if not is_whole:
        raise StoreError(
            f"The files of {model}, fold {fold}, do not belong together: a training "
            f"writes them, or was killed while it did. Materialize {model} again."
        )
    return files


def _rewritten_to(stores: Stores, files: Mapping[str, str]) -> FrozenEnsemble | None:
    """Return the ensemble whose files have become these since it was frozen."""
    ensembles = (_read_if_whole(stores, digest) for digest in frozen_digests(stores))
    matching = (
        one for one in ensembles if one and one.rewritten and one.present == files
    )
    return next(matching, None)


def _read_if_whole(stores: Stores, digest: str) -> FrozenEnsemble | None:
    """Return a frozen ensemble, ``None`` where a file of it is missing."""
    try:
        frozen = read_frozen(stores, digest)
    except (StoreError, ValueError, KeyError, TypeError):
        return None
    location = stores.root.join(frozen.folder)
    return frozen if all(location.exists(path) for path in frozen.files) else None


def _digest_of(files: Mapping[str, str]) -> str:
    return _sha256(json.dumps(dict(files), sort_keys=True).encode())[:16]


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
