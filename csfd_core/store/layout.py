"""Where everything lies in a source of the RSNA layout: every folder and file, once."""

from typing import Final

IMAGES_FOLDER: Final = "train_images"
MASKS_FOLDER: Final = "segmentations"
LABELS_FOLDER: Final = "labels"
LABELS_FILE: Final = "train.csv"
BOXES_FILE: Final = "train_bounding_boxes.csv"
PHANTOM_FILE: Final = "phantom.json"  # lies beside the labels of a synthetic source
