"""The backbones: what of ``keras.applications`` each classifier is made from.

A further backbone is one more entry. No heavy imports: assets are named after these.
"""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True, kw_only=True)
class Application:
    """One backbone of ``keras.applications``.

    Attributes:
        name: Of its classifier.
        application: Name of the function that builds it.
        module: Module of ``keras.applications`` with its ``preprocess_input``.
        top_blocks: Layers from the first whose name begins so on are fine-tuned.
    """

    name: str
    application: str
    module: str
    top_blocks: str


APPLICATIONS: Final = (
    Application(  # Szegedy et al. 2016, 22 million weights
        name="inception_v3",
        application="InceptionV3",
        module="inception_v3",
        top_blocks="mixed8",
    ),
    Application(  # He et al. 2016, 24 million weights
        name="resnet50",
        application="ResNet50",
        module="resnet50",
        top_blocks="conv5_block",
    ),
    Application(  # Tan and Le 2019, 28 million weights; it scales its input itself
        name="efficientnet_b5",
        application="EfficientNetB5",
        module="efficientnet",
        top_blocks="block7",
    ),
)
