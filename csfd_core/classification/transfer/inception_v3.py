"""InceptionV3 (Szegedy et al. 2016), 22 million weights."""

from typing import Final

from csfd_core.classification.transfer.backbone import Application

INCEPTION_V3: Final = Application(
    name="inception_v3",
    application="InceptionV3",
    module="inception_v3",
    top_blocks="mixed8",
)
