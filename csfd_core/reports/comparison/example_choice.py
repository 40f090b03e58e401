"""Which vertebrae a comparison shows: what the best model hits, misses and mistakes."""

from typing import Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from csfd_core.classification.classifier_store import ClassifierStore
from csfd_core.classification.manifest import Manifest
from csfd_core.classification.vertebrae import Vertebra, read_vertebrae
from csfd_core.learning.splits import Split
from csfd_core.registry.serving import open_ensemble
from csfd_core.reports.comparison.examples import Example
from csfd_core.store.stores import Stores
from csfd_core.vocabulary import OVERALL

_EACH: Final = 2


def choose_examples(stores: Stores, manifest: Manifest, model: str) -> list[Example]:
    """Return the clearest hits, misses and false alarms of a model on the test set.

    Args:
        stores: Where the model, its predictions and the crops are.
        manifest: Says where the crops lie.
        model: Its name; all of its folds speak together.
    """
    ensemble = open_ensemble(stores, model)
    results = [
        ClassifierStore(stores.root).result(model, card.fold or 0, card)
        for card in ensemble.cards
    ]
    tables = [r.predictions.assign(fold=r.fold) for r in results]
    rows = pd.concat(tables).dropna(subset=["label", "logit"])
    rows = rows[(rows["group"] == Split.TEST) & (rows["level"] != OVERALL)]
    if rows.empty:
        return []
    grouped = rows.groupby(["study_uid", "level"], as_index=False)
    vertebrae = grouped.agg(
        label=("label", "first"), probability=("probability", "mean")
    )
    is_above = vertebrae["probability"] >= ensemble.thresholds["vertebra"]
    is_fractured = vertebrae["label"] == 1
    chosen = {
        "hit": vertebrae[is_fractured & is_above].nlargest(_EACH, "probability"),
        "miss": vertebrae[is_fractured & ~is_above].nsmallest(_EACH, "probability"),
        "false alarm": vertebrae[~is_fractured & is_above].nlargest(
            _EACH, "probability"
        ),
    }
    examples = []
    for kind, table in chosen.items():
        for row in table.itertuples():
            crops = manifest.usable
            crops = crops[
                (crops["study_uid"] == row.study_uid) & (crops["level"] == row.level)
            ]
            for _, vertebra in read_vertebrae(stores.crops, crops):
                heats = [member.heat(vertebra) for member in ensemble.members]
                heat = np.mean(heats, axis=0)
                at = _slice_to_show(heat, vertebra)
                middle = vertebra.images.shape[1] // 2
                examples.append(
                    Example(
                        title=f"{row.level}, study ...{str(row.study_uid)[-8:]}",
                        kind=kind,
                        model=model,
                        grey=vertebra.images[at, middle],
                        heat=heat[at],
                        caption=f"probability {row.probability:.2f}, label "
                        f"{'fractured' if row.label == 1 else 'not fractured'}",
                    )
                )
    return examples


def _slice_to_show(heat: npt.NDArray[np.floating], vertebra: Vertebra) -> int:
    """Return the slice with the hottest place on the vertebra itself."""
    on_it = np.where(vertebra.masks > 0, heat, 0.0).reshape(len(heat), -1)
    return int(on_it.max(axis=1).argmax())
