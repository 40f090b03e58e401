"""All stores under one root."""

from dataclasses import dataclass

from csfd_core.store import paths
from csfd_core.store.crops import CropStore
from csfd_core.store.label_history import LabelHistory
from csfd_core.store.locations import Location
from csfd_core.store.masks import GivenMaskStore, PredictedMaskStore
from csfd_core.store.metadata import MetadataStore
from csfd_core.store.pictures import PictureStore
from csfd_core.store.slices import SliceStore
from csfd_core.store.volume_choices import VolumeChoices
from csfd_core.store.withdrawn import WithdrawnStore


@dataclass(frozen=True, slots=True)
class Stores:
    """All stores under one root."""

    root: Location

    @property
    def metadata(self) -> MetadataStore:
        """Headers and the table of studies."""
        return MetadataStore(self.root)

    @property
    def slices(self) -> SliceStore:
        """JPEG slices."""
        return SliceStore(self.root)

    @property
    def masks(self) -> GivenMaskStore:
        """Given masks."""
        return GivenMaskStore(self.root, paths.MASKS)

    @property
    def predicted_masks(self) -> PredictedMaskStore:
        """Masks that the segmentation has predicted."""
        return PredictedMaskStore(self.root, paths.PREDICTED_MASKS)

    @property
    def crops(self) -> CropStore:
        """Crops of the vertebrae."""
        return CropStore(self.root)

    @property
    def pictures(self) -> PictureStore:
        """What the steps show of each study."""
        return PictureStore(self.root)

    @property
    def label_history(self) -> LabelHistory:
        """Every label that a study has ever had."""
        return LabelHistory(self.root)

    @property
    def withdrawn(self) -> WithdrawnStore:
        """Studies that must not be taken up again."""
        return WithdrawnStore(self.root)

    @property
    def volume_choices(self) -> VolumeChoices:
        """Which volume of a study readers have chosen."""
        return VolumeChoices(self.root)
