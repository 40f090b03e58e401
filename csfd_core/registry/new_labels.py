"""How many studies were newly labelled, or corrected, since the newest training.

New are studies that a training could use and that no candidate has seen: labelled,
not quarantined, not of the locked test set. A study that the manifest leaves out (its
vertebrae were not found, say) is not counted, as training again would not use it.
Corrected are studies that the newest candidate has learnt from with other labels than
they have today; also those that were signed since, and whose crops are made from
something else by now, as where only a box was drawn.
"""

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from datetime import datetime

import pandas as pd

from csfd_core.classification.card import ClassifierCard
from csfd_core.classification.classifier_store import ClassifierStore
from csfd_core.classification.classifiers import CLASSIFIERS
from csfd_core.classification.manifest import read_manifest
from csfd_core.classification.trained_labels import is_corrected
from csfd_core.learning.splits import learnt_from, locked_studies
from csfd_core.store import paths
from csfd_core.store.labels import Labels
from csfd_core.store.source import Sources
from csfd_core.store.standing import usable_studies
from csfd_core.store.stores import Stores
from csfd_core.vocabulary import LEVEL_NAMES


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrivals:
    """Newly labelled and corrected studies.

    Attributes:
        in_store: Ingested, and of no use to the newest candidate yet.
        waiting: Labelled in a source, not ingested yet. Whether they are good, and of
            the locked test set, is not known before that.
        corrected: The newest candidate has learnt from other labels or boxes. None
            where its card is too old to tell.
        model_id: The newest candidate; of cards without a date, the one that has seen
            most. ``None``: nothing was trained yet.
        profile: Of its training.
        trained_on: Studies that it was trained, stopped or calibrated on.
    """

    in_store: tuple[str, ...]
    waiting: tuple[str, ...]
    corrected: tuple[str, ...]
    model_id: str | None
    profile: str
    trained_on: int

    @property
    def new(self) -> int:
        """How many are newly labelled."""
        return len(self.in_store) + len(self.waiting)

    @property
    def count(self) -> int:
        """How many are newly labelled or corrected."""
        return self.new + len(self.corrected)


def count_arrivals(stores: Stores, sources: Sources) -> Arrivals:
    """Compare what is labelled with what the newest candidate was trained on."""
    table = stores.metadata.read_studies() if _is_there(stores) else None
    withdrawn = stores.withdrawn.study_uids()
    history = stores.label_history
    labelled = history.read_labels(sources.locations, withdrawn)
    levels = labelled.table[list(LEVEL_NAMES)]
    levels = levels[levels.notna().any(axis=1)]
    with_labels = {str(uid) for uid in levels.index}
    folders = {folder.name for folder in sources.studies()}
    manifest = None
    if stores.root.exists(paths.MANIFEST):
        manifest = read_manifest(stores.root).table
    cards = ClassifierStore(stores.root).cards(list(CLASSIFIERS))
    return new_studies(
        table=table,
        manifest=manifest,
        offered=with_labels & folders,
        labels=levels,
        cards=cards,
        redrawn=redrawn_since(stores, labelled.dated, _newest(cards)),
    )


def new_studies(
    *,
    table: pd.DataFrame | None,
    manifest: pd.DataFrame | None,
    offered: Set[str],
    labels: pd.DataFrame,
    cards: Sequence[ClassifierCard],
    redrawn: Set[str] = frozenset(),
) -> Arrivals:
    """Count newly labelled and corrected studies, without reading anything.

    Args:
        table: The store's table of studies; ``None``: there is none yet.
        manifest: Rows of the training manifest; ``None``: there is none yet.
        offered: Studies of the sources that have labels and images.
        labels: Of the sources: index ``study_uid``, columns C1..C7, 0, 1 or null; only
            studies with a label.
        cards: Of all trained classifiers.
        redrawn: Studies that the newest has learnt from, with other boxes now.
    """
    newest = _newest(cards)
    trained = learnt_from([] if newest is None else [newest])
    usable, corrected, ingested = set[str](), set[str](), set[str]()
    if table is not None:
        ingested = {str(uid) for uid in table["study_uid"]}
        labelled = {str(uid) for uid in labels.index}
        usable = _usable(table, labelled) - _left_out(manifest)
        words = {} if newest is None else newest.label_digests
        changed = _corrected(words, labels) | redrawn
        corrected = changed & _usable(table, labelled)
    return Arrivals(
        in_store=tuple(sorted(usable - trained)),
        waiting=tuple(sorted(offered - ingested)),
        corrected=tuple(sorted(corrected)),
        model_id=None if newest is None else newest.model_id,
        profile="demo" if newest is None else newest.config.profile,
        trained_on=len(trained),
    )


def redrawn_since(
    stores: Stores, dated: Mapping[str, Labels], newest: ClassifierCard | None
) -> frozenset[str]:
    """Return the studies of a training that were signed and cut anew since.

    Their crops are made from their labels and boxes, among other things.

    Args:
        stores: That hold the crops.
        dated: Labels of today that have a date.
        newest: What was trained last; ``None``: nothing yet.
    """
    if newest is None or not newest.trained_at:
        return frozenset()
    trained_at = datetime.fromisoformat(newest.trained_at)
    learnt = newest.training_studies | newest.validation_studies
    signed = [uid for uid in learnt if uid in dated and dated[uid].moment > trained_at]
    notes = {uid: stores.crops.read_note(uid) for uid in signed}
    return frozenset(
        uid for uid, note in notes.items() if note and note.inputs != learnt[uid]
    )


def _newest(cards: Sequence[ClassifierCard]) -> ClassifierCard | None:
    return max(cards, key=lambda card: card.age, default=None)


def _corrected(words: Mapping[str, str], labels: pd.DataFrame) -> set[str]:
    """Return the studies of ``label_digests`` that have other labels now."""
    digested = labels[labels.index.isin(list(words))]
    return {
        str(uid)
        for uid, row in zip(digested.index, digested.to_dict("records"), strict=True)
        if is_corrected(
            words[str(uid)],
            {
                name: None if pd.isna(row[name]) else int(row[name])
                for name in LEVEL_NAMES
            },
        )
    }


def _usable(table: pd.DataFrame, labelled: Set[str]) -> set[str]:
    """Return the labelled, good studies outside the locked test set."""
    good = usable_studies(table)
    has_label = good[list(LEVEL_NAMES)].notna().any(axis=1)
    has_label = has_label | good["study_uid"].isin(labelled)
    return {str(uid) for uid in good["study_uid"][has_label]} - locked_studies(good)


def _left_out(manifest: pd.DataFrame | None) -> set[str]:
    """Return the studies of the manifest that have labels but no usable vertebra."""
    if manifest is None:
        return set()
    labelled = manifest[manifest["label"].notna()]
    is_used = labelled["left_out"].isna().groupby(labelled["study_uid"]).any()
    return {str(uid) for uid in is_used.index[~is_used]}


def _is_there(stores: Stores) -> bool:
    return stores.metadata.read_studies_inputs() is not None
