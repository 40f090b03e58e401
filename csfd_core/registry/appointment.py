"""The title of champion: given and taken by hand, and whether its holder may serve."""

from collections.abc import Sequence

from csfd_core.classification.general import with_general
from csfd_core.errors import SettingsError, StoreError
from csfd_core.learning.splits import leaks_of
from csfd_core.registry.champion import ChampionRegistry, Version
from csfd_core.registry.frozen import (
    FrozenEnsemble,
    damages,
    read_frozen,
)
from csfd_core.registry.history import (
    Action,
    Alias,
    Change,
    ChangeKind,
    changes_of,
    predecessor,
)
from csfd_core.store import paths
from csfd_core.store.stores import Stores
from csfd_core.text import capital, count


def promote_by_hand(
    registry: ChampionRegistry, number: int, by: str, reason: str
) -> Change:
    """Make a version the champion because a person says so.

    Raises:
        SettingsError: If there is no such version, it is the champion, or it has
            learnt from the locked test set.
        OvertakenError: If the champion has changed meanwhile.
        StoreError: If its files are damaged.
    """
    last = changes_of(registry.history(), Alias.CHAMPION)[-1:]
    return _give_title(registry, last, number, Action.PROMOTE, by, reason)


def roll_back(registry: ChampionRegistry, by: str, reason: str) -> Change:
    """Give the title back to the champion before the present one.

    Raises:
        SettingsError: If there was none.
        OvertakenError: If the champion has changed meanwhile.
        StoreError: If its files are damaged.
    """
    history = registry.history()
    number = predecessor(history)
    if number is None:
        raise SettingsError(
            "There is no champion before the present one to go back to. See csfd "
            "champion show, and csfd champion promote."
        )
    last = changes_of(history, Alias.CHAMPION)[-1:]
    return _give_title(registry, last, number, Action.ROLLBACK, by, reason)


def standing_of(registry: ChampionRegistry) -> tuple[Version | None, list[str]]:
    """Return the champion and why it may not serve, a sentence each; []: it may."""
    try:
        version = registry.champion()
    except SettingsError as error:
        return None, [str(error)]
    if version is None:
        return None, []
    reasons = damages(registry.stores, version.digest)
    if not reasons:
        frozen = read_frozen(registry.stores, version.digest)
        if leaked := locked_studies_learnt_from(registry.stores, frozen):
            reasons.append(_tell_leaked(version, leaked))
    last = changes_of(registry.history(), Alias.CHAMPION)[-1]
    if last.kind is ChangeKind.OUTSIDE:
        reasons.append(
            f"{capital(version.title)} got the title by other means than csfd. Look "
            "at it, then use csfd champion promote or csfd champion rollback."
        )
    if last.kind is ChangeKind.DECISION:
        unmet = [] if last.decision is None else last.decision.unmet
        if unmet or last.decision is None or not last.decision.conditions:
            reasons.append(
                f"{capital(version.title)} got the title by a decision whose "
                f"conditions were not met. {' '.join(unmet)}".rstrip()
            )
    return version, reasons


def locked_studies_learnt_from(stores: Stores, frozen: FrozenEnsemble) -> list[str]:
    """Return the locked test studies that an ensemble has learnt from: none.

    The locked set is that of the table of studies, by today's hash of each patient.
    """
    if stores.metadata.read_studies_inputs() is None:  # no table yet
        return []
    cards = [result.card for result in frozen.results(stores)]
    return list(leaks_of(with_general(cards), stores.metadata.read_studies()).locked)


def require_whole(registry: ChampionRegistry, version: Version) -> FrozenEnsemble:
    """Return a version's ensemble if its files are as they were frozen.

    Raises:
        StoreError: If they are not.
    """
    if damaged := damages(registry.stores, version.digest):
        raise StoreError(
            f"The files of {version.title} are damaged: {damaged[0]} Bring "
            f"{paths.FROZEN_ENSEMBLES}/{version.digest} back from a copy of the store."
        )
    return read_frozen(registry.stores, version.digest)


def _tell_leaked(version: Version, leaked: list[str]) -> str:
    return (
        f"{capital(version.title)} was trained or calibrated on "
        f"{count(len(leaked), 'study')} of the locked test set, first {leaked[0]}."
    )


def _give_title(
    registry: ChampionRegistry,
    last: Sequence[Change],
    number: int,
    action: Action,
    by: str,
    reason: str,
) -> Change:
    """Give the title to a version, if the ``last`` change of it is the last still."""
    if not reason.strip():
        raise SettingsError("A change by hand needs a reason. Say it with --reason.")
    version = registry.version(number)
    if last and last[0].after == number and last[0].kind is not ChangeKind.OUTSIDE:
        raise SettingsError(f"{capital(version.title)} is the champion already.")
    frozen = require_whole(registry, version)
    if leaked := locked_studies_learnt_from(registry.stores, frozen):
        raise SettingsError(f"{_tell_leaked(version, leaked)} It must not serve.")
    change = Change(
        alias=Alias.CHAMPION,
        after=number,
        model=version.model,
        action=action,
        kind=ChangeKind.BY_HAND,
        by=by,
        reason=reason.strip(),
    )
    before = last[0].after if last else None
    return registry.move(Alias.CHAMPION, version, change, before)
