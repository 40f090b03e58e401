"""Every classifier by name. A new backbone of Keras joins with one module and one line.

Nothing heavy is imported here: assets are named after these classifiers.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Final

from csfd_core.classification.basic_cnn.network import BasicCnn
from csfd_core.classification.classifier import Classifier, CropShape
from csfd_core.classification.config import ClassifierConfig
from csfd_core.classification.transfer.backbone import (
    Application,
    BackboneClassifier,
)
from csfd_core.classification.transfer.efficientnet_b5 import EFFICIENTNET_B5
from csfd_core.classification.transfer.inception_v3 import INCEPTION_V3
from csfd_core.classification.transfer.resnet50 import RESNET50
from csfd_core.errors import SettingsError
from csfd_core.store.locations import Location

_APPLICATIONS: Final[tuple[Application, ...]] = (
    INCEPTION_V3,
    RESNET50,
    EFFICIENTNET_B5,
)
CLASSIFIERS: Final[Mapping[str, Callable[..., Classifier]]] = {
    "basic_cnn": BasicCnn,
    **{spec.name: partial(BackboneClassifier, spec) for spec in _APPLICATIONS},
}


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
