"""Notes: what stands in the footer of a study's files, and how the files were made.

Each note has a schema version. One without it is of version 1, whose shape has not
changed since the first csfd; a note of a newer csfd is refused, never half understood.
"""

import json
from collections.abc import Mapping
from typing import Any, ClassVar, Self

import pydantic

from csfd_core.dicom.geometry import VolumeGeometry
from csfd_core.errors import StoreError
from csfd_core.vocabulary import Window


def named(name: str) -> Any:  # noqa: ANN401 - as pydantic's own
    """Give a field another name in JSON, as part of its ``Annotated`` type."""
    return pydantic.Field(validation_alias=name, serialization_alias=name)


class Note(pydantic.BaseModel):
    """Base of all notes; unknown entries are left alone."""

    model_config = pydantic.ConfigDict(
        frozen=True,
        protected_namespaces=(),
        validate_by_name=True,
        validate_by_alias=True,
    )
    newest: ClassVar[int] = 1

    schema_version: int = 1

    @classmethod
    def read(cls, note: Mapping[str, Any], path: str) -> Self:
        """Return the note that ``to_json`` gave.

        Args:
            note: As it stands in the file.
            path: The file, for messages.

        Raises:
            StoreError: If it is of a newer csfd, or lacks what it must hold.
        """
        version = note.get("schema_version", 1)
        if version > cls.newest:
            raise StoreError(
                f"{path} has a note of version {version}, this csfd reads up to "
                f"{cls.newest}. Use the csfd that wrote it, or a newer one."
            )
        try:
            return cls.model_validate(note)
        except pydantic.ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(str(part) for part in first["loc"])
            raise StoreError(
                f"The note of {path} cannot be used: {where}: {first['msg']}. Remove "
                "the file and make it again."
            ) from error

    def to_json(self) -> dict[str, Any]:
        """Return the note as JSON values."""
        return self.model_dump(mode="json", by_alias=True)

    def to_bytes(self) -> bytes:
        """Return the note as a JSON file of its own, its keys sorted."""
        return (json.dumps(self.to_json(), indent=2, sort_keys=True) + "\n").encode()


class StudyNote(Note):
    """What the note of every file of a study in its own grid holds."""

    study_uid: str
    content_hash: str  # of the slices that it was made from
    shape_zyx: tuple[int, int, int]
    spacing_zyx_mm: tuple[float, float, float]
    affine_lps: tuple[tuple[float, ...], ...]
    z_extent_mm: float
    z_descending: bool

    @property
    def geometry(self) -> VolumeGeometry:
        """Where the voxels lie."""
        return VolumeGeometry(
            shape_zyx=self.shape_zyx,
            spacing_zyx_mm=self.spacing_zyx_mm,
            affine_lps=self.affine_lps,
            z_extent_mm=self.z_extent_mm,
            z_descending=self.z_descending,
        )


class ConversionNote(pydantic.BaseModel):
    """How slices became JPEGs."""

    model_config = pydantic.ConfigDict(frozen=True)

    format: int
    jpeg_quality: int
    window: Window


class SliceNote(StudyNote):
    """Of a study's slices."""

    conversion: ConversionNote
    encoder: str


class GivenMaskNote(StudyNote):
    """Of a mask that came with the study."""

    format: int
    mask_hash: str  # of the mask's own file


class LevelNote(pydantic.BaseModel):
    """What the segmentation has found of one vertebra."""

    model_config = pydantic.ConfigDict(frozen=True)

    volume_ml: float
    confidence: float  # mean probability of its voxels, 0..1
    is_cut: bool  # it reaches the first or last slice
    centre_zyx_mm: tuple[float, float, float]  # from the first voxel of the scan


class PredictedMaskNote(StudyNote):
    """Of a mask that the segmentation has predicted."""

    format: int
    model_id: str
    fold: int
    standing: str  # whether the model has seen the study
    levels: dict[str, LevelNote]
    flags: tuple[str, ...]  # what contradicts anatomy, a sentence each


class CropNote(Note):
    """Of the crops of a study."""

    study_uid: str
    inputs: str  # identity of all that they were made from
    crop: dict[str, Any]  # settings, as ``CropConfig.to_note`` gives them
    model_id: str
    standing: str
    levels: tuple[str, ...]
    spacing_zyx_mm: tuple[float, float, float] | None = None  # None: older than 0.3
