"""Every trained model that a store keeps, by its card: what it was made from."""

from dataclasses import dataclass

from csfd_core.classification.classifier_store import ClassifierStore
from csfd_core.learning.card import ModelCard
from csfd_core.learning.splits import Split
from csfd_core.registry.frozen import frozen_digests
from csfd_core.segmentation.bundle import BUILTIN, builtin_location, read_card
from csfd_core.segmentation.model_store import ModelStore
from csfd_core.store import paths
from csfd_core.store.redaction import stand_in_of
from csfd_core.store.stores import Stores


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainedModel:
    """One trained model without its weights."""

    name: str  # "basic_cnn, fold 0"
    folder: str  # below the store's root; BUILTIN: comes with csfd
    card: ModelCard

    @property
    def model_id(self) -> str:
        """Identity of what it was trained from."""
        return self.card.model_id

    def roles_of(self, study_uid: str) -> list[Split]:
        """Say what a model used a study for, also one that was withdrawn since.

        []: it did not.
        """
        told = self.card.splits_of
        return told(study_uid) or told(stand_in_of(study_uid))


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainedEnsemble:
    """Classifiers that were frozen together, to be a version of the registry."""

    digest: str
    members: tuple[TrainedModel, ...]

    @property
    def folder(self) -> str:
        """Return where it lies below the store's root."""
        return f"{paths.FROZEN_ENSEMBLES}/{self.digest}"

    @property
    def model_ids(self) -> list[str]:
        """Identity of each member."""
        return [member.model_id for member in self.members]

    @property
    def title(self) -> str:
        """Name of its classifier, and the digest."""
        names = sorted({member.name.partition(",")[0] for member in self.members})
        return f"{', '.join(names)} {self.digest}"

    def roles_of(self, study_uid: str) -> list[Split]:
        """Say what its members used a study for; []: none did."""
        roles = {role for one in self.members for role in one.roles_of(study_uid)}
        return [group for group in Split if group in roles]


def trained_classifiers(
    stores: Stores, folder: str = paths.CLASSIFIERS
) -> list[TrainedModel]:
    """Return the classifiers in a folder, all folds: the newest, unless told."""
    models = ClassifierStore(stores.root, folder)
    return [
        TrainedModel(
            name=f"{name}, fold {fold}",
            folder=f"{folder}/{name}/fold_{fold}",
            card=card,
        )
        for name in stores.root.folders(folder)
        for fold in models.folds(name)
        if (card := models.card(name, fold)) is not None
    ]


def trained_ensembles(stores: Stores) -> list[TrainedEnsemble]:
    """Return every frozen ensemble, also one whose freezing was cut off."""
    ensembles = [
        TrainedEnsemble(
            digest=digest,
            members=tuple(
                trained_classifiers(stores, f"{paths.FROZEN_ENSEMBLES}/{digest}")
            ),
        )
        for digest in frozen_digests(stores)
    ]
    return [ensemble for ensemble in ensembles if ensemble.members]


def trained_segmentations(stores: Stores) -> list[TrainedModel]:
    """Return the segmentation models of the store, and the one that csfd brings."""
    cards = ModelStore(stores.root).cards()
    models = [
        TrainedModel(
            name=f"segmentation, fold {fold}",
            folder=f"{paths.SEGMENTATION_MODELS}/fold_{fold}",
            card=card,
        )
        for fold, card in cards.items()
    ]
    general = read_card(builtin_location())
    if general is not None:
        name = "segmentation that comes with csfd"
        models.append(TrainedModel(name=name, folder=BUILTIN, card=general))
    return models
