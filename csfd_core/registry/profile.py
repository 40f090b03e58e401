"""One profile per store: models and crops of two sizes do not fit each other."""

from typing import Final

from csfd_core.classification.classifier_store import ClassifierStore
from csfd_core.classification.classifiers import CLASSIFIERS
from csfd_core.crops.cutting import CROP_PROFILES, CropConfig
from csfd_core.errors import SettingsError
from csfd_core.segmentation.model_store import ModelStore
from csfd_core.store.paths import CROPS
from csfd_core.store.record import StoreRecord, read_record, write_record
from csfd_core.store.stores import Stores
from csfd_core.vocabulary import Profile

_PROFILES: Final[tuple[Profile, ...]] = ("demo", "full")


def profile_of(stores: Stores) -> Profile | None:
    """Return the profile of a store; ``None``: it has neither record, model nor crops.

    A store of a csfd that kept no record has the profile of its newest model.

    Raises:
        StoreError: If the record cannot be read.
    """
    record = read_record(stores.root)
    return _profile_of_content(stores) if record is None else record.profile


def require_profile(stores: Stores, asked: Profile) -> None:
    """Record the profile of a store before its first write; refuse another one.

    Raises:
        SettingsError: If the store has another profile than the one asked for.
        StoreError: If the record cannot be read.
    """
    record = read_record(stores.root)
    profile = record.profile if record else _profile_of_content(stores)
    if profile not in (None, asked):
        raise SettingsError(
            f"The profile {asked} was asked for, but the store {stores.root} is of "
            f"the profile {profile}: use that one (--profile {profile} or "
            f"CSFD_PROFILE={profile}), or name another store."
        )
    if record is None:
        write_record(stores.root, StoreRecord(profile=asked))


def _profile_of_content(stores: Stores) -> Profile | None:
    if cards := ClassifierStore(stores.root).cards(list(CLASSIFIERS)):
        return max(cards, key=lambda card: card.age).config.profile
    for card in ModelStore(stores.root).cards().values():
        if card.training is not None:
            return card.training.profile
    for entry in stores.root.entries(CROPS):
        note = stores.crops.read_note(entry.name.removesuffix(".parquet"))
        config = None if note is None else CropConfig.from_note(note.crop)
        return next((p for p in _PROFILES if CROP_PROFILES[p] == config), None)
    return None
