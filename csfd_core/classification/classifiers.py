"""Every classifier by name. A new backbone of Keras joins with one entry of its table.

Nothing heavy is imported here: assets are named after these classifiers.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Final

from csfd_core.classification.basic_cnn.network import NAME as BASIC_CNN
from csfd_core.classification.basic_cnn.network import BasicCnn
from csfd_core.classification.classifier import Classifier, CropShape
from csfd_core.classification.config import NONE, ClassifierConfig
from csfd_core.classification.transfer.applications import APPLICATIONS
from csfd_core.classification.transfer.backbone import BackboneClassifier
from csfd_core.classification.triplanar.network import NAME as TRIPLANAR_CNN
from csfd_core.classification.triplanar.network import TriplanarCnn
from csfd_core.errors import SettingsError
from csfd_core.store.locations import Location

CLASSIFIERS: Final[Mapping[str, Callable[..., Classifier]]] = {
    BASIC_CNN: BasicCnn,
    TRIPLANAR_CNN: TriplanarCnn,
    **{spec.name: partial(BackboneClassifier, spec) for spec in APPLICATIONS},
}
_BACKBONES: Final = frozenset(spec.name for spec in APPLICATIONS)
_RANDOM: Final = "random"


def has_backbone(name: str) -> bool:
    """Say whether a classifier is a head on a backbone, and no network for patches."""
    return name in _BACKBONES


def told_weights(name: str, weights: str) -> str:
    """Say what a classifier started from, as tables do.

    A backbone stays as it started: without weights it is random for good.
    """
    return _RANDOM if has_backbone(name) and weights == NONE else weights


def open_classifier(
    name: str, config: ClassifierConfig, shape: CropShape, root: Location
) -> Classifier:
    """Return an untrained classifier.

    Raises:
        SettingsError: If there is none of that name.
    """
    if name not in CLASSIFIERS:
        raise SettingsError(
            f"There is no classifier {name!r}. There are: {', '.join(CLASSIFIERS)}."
        )
    return CLASSIFIERS[name](config, shape, root)
