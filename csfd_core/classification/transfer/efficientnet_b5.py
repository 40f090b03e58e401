"""EfficientNetB5 (Tan and Le 2019), 28 million weights; it scales its input itself."""

from typing import Final

from csfd_core.classification.transfer.backbone import Application

EFFICIENTNET_B5: Final = Application(
    name="efficientnet_b5",
    application="EfficientNetB5",
    module="efficientnet",
    top_blocks="block7",
)
