"""ResNet50 (He et al. 2016), 24 million weights."""

from typing import Final

from csfd_core.classification.transfer.backbone import Application

RESNET50: Final = Application(
    name="resnet50",
    application="ResNet50",
    module="resnet50",
    top_blocks="conv5_block",
)
