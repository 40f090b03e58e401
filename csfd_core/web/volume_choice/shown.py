"""Which axial volumes a study has, which is read, and what readers have chosen.

What tells them apart are numbers and whether the kernel is sharp: no text of a header.
"""

from typing import Any

from pydantic import BaseModel

from csfd_core.text import count
from csfd_core.web.services import Services


class ShownVolume(BaseModel):
    """One volume of a study.

    Attributes:
        number: As the volumes are ranked: 1 is read unless another is chosen.
        slice_uid: SOPInstanceUID of a slice that it alone has, by which it is chosen;
            ``None``: it cannot be.
        slice_count: Slices.
        step_mm: From slice to slice.
        thickness_mm: Of a slice, as its header says.
        extent_mm: From the first to the last slice.
        is_bone_kernel: Reconstructed with a sharp kernel.
        is_usable: It has no defect for which a study is refused.
        is_read: It is the one that is shown and predicted.
        told: The same in words.
    """

    number: int
    slice_uid: str | None
    slice_count: int
    step_mm: float
    thickness_mm: float | None
    extent_mm: float
    is_bone_kernel: bool
    is_usable: bool
    is_read: bool
    told: str

    @property
    def can_be_chosen(self) -> bool:
        """Whether a reader may let it be read."""
        return self.is_usable and not self.is_read and self.slice_uid is not None


class ShownChoice(BaseModel):
    """What a reader has chosen: from this version of the study on."""

    version: int
    volume: str
    by: str
    at: str


class StudyVolumes(BaseModel):
    """The volumes of a study, best first, and all choices, the oldest first."""

    volumes: list[ShownVolume]
    choices: list[ShownChoice]

    @property
    def read(self) -> ShownVolume | None:
        """The volume that is read."""
        return next((one for one in self.volumes if one.is_read), None)

    def made(self, version: int) -> bool:
        """Say whether a version came of a choice."""
        return any(one.version == version for one in self.choices)


def volumes_of(services: Services, study_uid: str) -> StudyVolumes:
    """Return what may be read of a study; no volumes where there is but one.

    Raises:
        IdentifierError: If ``study_uid`` is no valid UID.
    """
    record = services.stores.metadata.read_record(study_uid)
    facts = () if record is None else record.volumes
    read = 0 if record is None else record.volume
    volumes = [
        ShownVolume(**one, number=number, is_read=number == read, told=_tell(one))
        for number, one in enumerate(facts, 1)
    ]
    choices = [
        ShownChoice(version=one.version, volume=one.told, by=one.by, at=one.at)
        for one in services.stores.volume_choices.of_study(study_uid)
    ]
    return StudyVolumes(volumes=volumes, choices=choices)


def _tell(facts: dict[str, Any]) -> str:
    kernel = "bone kernel" if facts["is_bone_kernel"] else "no bone kernel"
    slices = count(facts["slice_count"], "slice")
    return f"{slices}, {facts['step_mm']:.3g} mm apart, {kernel}"
