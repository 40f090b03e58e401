"""The settings of the graph: places, schedules, trainings, limits."""

import os
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import Field
from pydantic.config import JsonDict
from pydantic_settings import SettingsConfigDict

from csfd_core.settings.environment import (
    PREFIX,
    Count,
    Cron,
    Environment,
    Folder,
    FolderOrUrl,
    Margin,
    below_home,
)
from csfd_core.vocabulary import FOLD_COUNT, JPEG_QUALITY, Profile

_OF_PROFILE: Final[JsonDict] = {"shown": "the profile's"}


def _user_file(values: dict[str, Any]) -> Path:
    """Return where the secret lies: with what belongs to the user, not to a store."""
    try:
        base = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    except RuntimeError:  # a container may have no such user
        base = values["home"] / "data"
    return base / "csfd" / "patients.key"


class Settings(Environment):
    """Where data come from and go to, and who does the work."""

    home: Folder = Field(
        default_factory=Path.cwd,
        description="Folder that all other places are in by default.",
        json_schema_extra={"shown": "the current folder"},
    )
    source: FolderOrUrl = Field(
        default_factory=below_home("data/source"),
        description="Studies in the RSNA layout.",
    )
    inbox: FolderOrUrl = Field(
        default_factory=below_home("data/inbox"),
        description="Studies that arrive later, in the same layout.",
    )
    store: FolderOrUrl = Field(
        default_factory=below_home("data/store"),
        description="Everything that csfd writes.",
    )
    key_file: Folder = Field(
        default_factory=_user_file,
        description="Secret for the digests of PatientIDs, made at first use. Keep it "
        "outside of the stores, and with a backup.",
        json_schema_extra={
            "shown": "`~/.config/csfd/patients.key`",
            "allowed": "a file",
        },
    )
    profile: Profile = Field(
        default="demo",
        description="Sizes of models and crops: for two processors, or for a GPU. "
        "Recorded in the store; another one is refused.",
        json_schema_extra={"shown": "the store's, else `demo`"},
    )
    workers: int = Field(
        default=0,
        ge=0,
        description="Processes for the work on many studies; 0: one per processor.",
    )
    dask: str | None = Field(
        default=None,
        description="Dask scheduler whose workers do that work instead.",
        pattern=r"^[a-z]+://[^/\s]+$",
        json_schema_extra={"shown": "none", "allowed": "tcp://host:port"},
    )
    jpeg_quality: int = Field(
        default=JPEG_QUALITY,
        ge=1,
        le=100,
        description="Of the slices in the store.",
    )
    mlflow_tracking_uri: str = Field(
        default_factory=lambda values: f"sqlite:///{values['home']}/data/mlflow.db",
        validation_alias="MLFLOW_TRACKING_URI",
        description="What the runs have recorded.",
        json_schema_extra={
            "shown": "`sqlite:///data/mlflow.db`",
            "allowed": "sqlite:///file or a server's URL",
        },
    )
    dagster_home: Folder = Field(
        default_factory=lambda values: values["home"],
        validation_alias="DAGSTER_HOME",
        description="Folder of Dagster's own state and of its `dagster.yaml`, which is "
        "put there if it is missing.",
        json_schema_extra={"shown": "`CSFD_HOME`"},
    )
    files_port: int = Field(
        default=3001,
        ge=1,
        le=65535,
        description="Port on this machine where `csfd ui` serves the store's reports "
        "and pictures.",
    )


class ScheduleSettings(Environment):
    """What happens by itself, and when."""

    look_every_s: Count = Field(
        default=20,
        description="Seconds between two looks at the sources; where a look takes "
        "seconds, ten times as long as it takes.",
    )
    settle_s: Annotated[int, Field(ge=0)] = Field(
        default=60,
        description="Seconds for which a study must stay as it is before it is taken "
        "up; 0: from one look to the next.",
    )
    retrain_cron: Cron = Field(
        default="0 2 * * *",  # when nobody reads studies, and before the drift watch
        description="When the retraining looks for new labels.",
    )
    retrain_studies: Count = Field(
        default=20,  # two to four weeks of a department
        description="Newly labelled or corrected studies that start a training.",
    )
    drift_cron: Cron = Field(
        default="0 3 * * 1",  # an hour after the retraining looks
        description="When the data are looked at for drift.",
    )
    audit_cron: Cron = Field(
        default="0 4 * * 0", description="When everything in the store is looked at."
    )


class SegmentationSettings(Environment):
    """How the segmentation is trained."""

    model_config = SettingsConfigDict(env_prefix=f"{PREFIX}SEGMENTATION_")

    seed: int = Field(default=0, ge=0, description="Same seed, same model.")
    folds: int = Field(
        default=1,
        ge=1,
        le=FOLD_COUNT,
        description="Of how many folds a model is trained.",
    )
    epochs: Count | None = Field(
        default=None, description="Epochs at most.", json_schema_extra=_OF_PROFILE
    )
    steps_per_epoch: Count | None = Field(
        default=None, description="Steps of an epoch.", json_schema_extra=_OF_PROFILE
    )
    patience: Annotated[int, Field(ge=0)] | None = Field(
        default=None,
        description="Epochs without a better validation Dice before a training stops; "
        "0: never.",
        json_schema_extra=_OF_PROFILE,
    )
    initial: Literal["builtin", "none"] | None = Field(
        default=None,
        description="Weights to start from.",
        json_schema_extra=_OF_PROFILE,
    )


class ClassificationSettings(Environment):
    """How the classifiers are trained."""

    model_config = SettingsConfigDict(env_prefix=f"{PREFIX}CLASSIFICATION_")

    weights: str | None = Field(
        default=None,
        validation_alias=f"{PREFIX}WEIGHTS",
        description="What backbones start from.",
        json_schema_extra={
            **_OF_PROFILE,
            "allowed": "none, imagenet or a file of Keras weights without top layers",
        },
    )
    folds: int = Field(
        default=1,
        ge=1,
        le=FOLD_COUNT,
        validation_alias=f"{PREFIX}FOLDS",
        description="Of how many folds classifiers are trained: 1 is quick, "
        f"{FOLD_COUNT} is cross-validation.",
    )
    seed: int = Field(default=0, ge=0, description="Same seed, same model.")
    epochs: Count | None = Field(
        default=None, description="Epochs.", json_schema_extra=_OF_PROFILE
    )
    steps_per_epoch: Count | None = Field(
        default=None,
        description="Steps of an epoch of the basic and the triplanar CNN.",
        json_schema_extra=_OF_PROFILE,
    )
    initial: str | None = Field(
        default=None,
        description="What the basic and the triplanar CNN start from.",
        json_schema_extra={
            **_OF_PROFILE,
            "allowed": "general, none or a weights.npz of such a network",
        },
    )


class PromotionSettings(Environment):
    """What a challenger must reach to become champion."""

    model_config = SettingsConfigDict(env_prefix=f"{PREFIX}PROMOTION_")

    least_subjects: int = Field(
        default=10,  # an interval of fewer means nothing
        ge=2,
        description="Fewest patients of the locked test set that can decide.",
    )
    loss_margin: float = Field(
        default=0.0,
        allow_inf_nan=False,
        description="Upper end of the 95 % interval of challenger minus champion must "
        "lie below it, competition log loss in nats; 0: better by more than chance.",
    )
    sensitivity_margin: Margin = Field(
        default=0.05, description="Sensitivity that may be lost at the operating point."
    )
    calibration_margin: Margin = Field(
        default=0.02, description="By which the calibration error may grow."
    )
    latency_factor: float = Field(
        default=3.0,
        ge=1,
        allow_inf_nan=False,
        description="Times the champion's milliseconds per study.",
    )
    unhurried_ms: Margin = Field(
        default=2000.0,
        description="Per study; no challenger below this is too slow.",
    )


class LimitSettings(Environment):
    """What is refused unread, as no study of a neck needs it."""

    max_pixels: Count = Field(
        default=4096 * 4096,  # CT has 512 x 512, or 1024 x 1024
        description="Pixels of one slice.",
    )
    max_file_mb: Count = Field(
        default=256,  # a slice has half a megabyte
        description="Megabytes of one DICOM file, inflated if it is deflated.",
    )
    max_zip_mb: Count = Field(
        default=8192,  # a study has 200 to 600
        description="Megabytes that a zip file may unpack to.",
    )
    max_zip_files: Count = Field(
        default=100_000,
        description="Files in a zip file.",
    )
    max_withdrawals: Count = Field(
        default=20,
        description="Studies that label files may withdraw at once; more are not.",
    )
    max_zip_ratio: Count = Field(
        default=200,  # CT shrinks to a third, empty slices to a hundredth
        description="Times that a file in a zip file may grow when it is unpacked.",
    )
