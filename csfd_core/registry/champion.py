"""The champion and the challenger: aliases of a registered model in MLflow.

A version of the registered model is one ensemble, frozen in the store
(``registry.frozen``); its tags name it by digest, and nothing of a patient. MLflow
holds the aliases, and moves one whatever it was before; so a change is claimed in the
store first (``registry.claims``), by one alone, who has seen what it changes. Then it
is written to a tag of the version, the alias is moved, and the change is recorded. A
process that dies in between leaves the champion as it was, or moved with the record
still to be written; ``settle`` does what is left.

Each store has a registered model of its own, ``csfd-classifier`` or, where another
store has taken that name in the same MLflow, one with a suffix: a champion of one store
never serves another.
"""

import json
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from types import EllipsisType
from typing import TYPE_CHECKING, Final

from csfd_core.errors import OvertakenError, SettingsError
from csfd_core.registry.claims import (
    TURN,
    Claim,
    last_number,
    make_claim,
    read_claim,
    wait_for,
)
from csfd_core.registry.frozen import FrozenEnsemble
from csfd_core.registry.history import (
    Action,
    Alias,
    Change,
    ChangeKind,
    append_change,
    changes_of,
    read_history,
    tell_holder,
)
from csfd_core.runtime.tracking import open_client
from csfd_core.store import paths
from csfd_core.store.notes import Note
from csfd_core.store.stores import Stores

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion, RegisteredModel

NAME: Final = "csfd-classifier"
_STORE_TAG: Final = "csfd.store_id"
_DIGEST_TAG: Final = "csfd.digest"
_CHANGE_TAG: Final = "csfd.change"
_MOST_CLAIMS: Final = 100  # of others, between looking and claiming
_ABSENT: Final = "RESOURCE_DOES_NOT_EXIST"
_THERE: Final = "RESOURCE_ALREADY_EXISTS"


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """A registered ensemble."""

    number: int
    digest: str  # of the frozen ensemble
    model: str  # name in the registry of backbones
    tags: dict[str, str] = field(default_factory=dict, repr=False)

    @property
    def title(self) -> str:
        """Return what sentences call it."""
        return f"version {self.number} ({self.model})"


class RegistryNote(Note):
    """Which registered model is this store's."""

    store_id: str
    registered_model: str


class ChampionRegistry:
    """Versions and aliases of one store. Opens nothing until it is used."""

    def __init__(self, stores: Stores, tracking_uri: str) -> None:
        """Take where the ensembles are, and MLflow's backend."""
        self.stores = stores
        self.tracking_uri = tracking_uri

    @property
    def is_begun(self) -> bool:
        """Say whether the store has ever registered a version; asks the store only."""
        return self.stores.root.exists(paths.CHAMPION_REGISTRY)

    def holder(self, alias: Alias) -> Version | None:
        """Return the version that has an alias, ``None`` where none has it.

        Raises:
            SettingsError: If MLflow cannot be used, or the version is gone.
        """
        number = self._number_of(alias)
        return None if number is None else self.version(number)

    def champion(self) -> Version | None:
        """Return the champion, ``None`` where there has not been one yet.

        Raises:
            SettingsError: If MLflow cannot be used, or does not know the champion that
                the store's record names.
        """
        version = self.holder(Alias.CHAMPION)
        recorded = changes_of(read_history(self.stores.root), Alias.CHAMPION)
        if version is None and recorded:
            number = recorded[-1].after
            raise SettingsError(
                f"MLflow has no champion, but version {number} was. Check "
                f"MLFLOW_TRACKING_URI; csfd champion promote {number} gives the title "
                "back."
            )
        return version

    def version(self, number: int) -> Version:
        """Return a version.

        Raises:
            SettingsError: If MLflow cannot be used, or there is no such version.
        """
        model = self._registered()
        if model is not None:
            version = self._get_version(str(model.name), number)
            if version is not None:
                return version
        raise SettingsError(
            f"There is no version {number} of the classifier in MLflow for the store "
            f"{self.stores.root}. See csfd champion show."
        )

    def versions(self) -> list[Version]:
        """Return all versions, the oldest first."""
        model = self._registered()
        if model is None:
            return []
        registered = self._client.search_model_versions(f"name='{model.name}'")
        return sorted((_to_version(v) for v in registered), key=lambda v: v.number)

    def register(self, frozen: FrozenEnsemble, run_id: str) -> Version:
        """Return the version of a frozen ensemble, made if it is new.

        Args:
            frozen: In the store.
            run_id: The MLflow run that registers it and holds its description.
        """
        for version in self.versions():
            if version.digest == frozen.digest:
                return version
        name = self._require_registered()
        tags = {
            _DIGEST_TAG: frozen.digest,
            "csfd.place": frozen.folder,
            "csfd.model": frozen.model,
            "csfd.model_ids": ", ".join(frozen.model_ids),
            "csfd.manifest": ", ".join(frozen.manifests),
            "csfd.data_kind": frozen.data_kind,
            "csfd.code_version": ", ".join(frozen.code_versions),
            "csfd.training_runs": ", ".join(self._training_runs(frozen)),
        }
        made = self._client.create_model_version(
            name,
            f"runs:/{run_id}/ensemble",
            run_id=run_id,
            tags={key: value for key, value in tags.items() if value},
            await_creation_for=0,
        )
        # Two who register the same at once have made two; both take the first.
        same = [v for v in self.versions() if v.digest == frozen.digest]
        return same[0] if same else _to_version(made)

    def tag(self, version: Version, key: str, value: str) -> None:
        """Write a tag of a version."""
        self._client.set_model_version_tag(
            self._require_registered(), str(version.number), key, value
        )

    def move(
        self,
        alias: Alias,
        version: Version,
        change: Change,
        expected: int | None | EllipsisType = ...,
    ) -> Change:
        """Give an alias to a version, and record it; ``change`` says who and why.

        Args:
            alias: What moves.
            version: Who gets it.
            change: To record.
            expected: Version that has it before, ``None``: nobody; ``...``: whoever.

        Raises:
            OvertakenError: If another version has it by now.
            SettingsError: If MLflow cannot be used.
        """
        root = self.stores.root
        with TURN:
            for _ in range(_MOST_CLAIMS):
                number, _ = self._settle()
                before = self._number_of(alias)
                if expected not in (..., before):
                    raise OvertakenError(tell_holder(self.history(), alias, before))
                claim = make_claim(root, number + 1, change.since(before))
                if claim is not None:
                    self._carry_out(claim)
                    return claim.change
        raise OvertakenError(
            f"Others change the {alias} of the store {root} all the time. Repeat it "
            "when they have finished."
        )

    def history(self) -> list[Change]:
        """Return every change, also those that the record in the store lacks."""
        recorded = read_history(self.stores.root)
        return [*recorded, *self._unrecorded(recorded)]

    def settle(self) -> list[Change]:
        """Do what a process that died has left undone or unrecorded; return that."""
        with TURN:
            return self._settle()[1]

    def _settle(self) -> tuple[int, list[Change]]:
        """Settle; return the last claim's number, too: all up to it is carried out."""
        root, done = self.stores.root, list[Change]()
        while True:
            number = last_number(root)
            claim = read_claim(root, number) if number else None
            if claim is not None:
                where = claim.is_carried_out_at
                if not wait_for(claim, partial(root.exists, where)):
                    self._carry_out(claim)
                    done.append(claim.change)
            missing = self._unrecorded(read_history(root))
            if last_number(root) == number:  # else its alias was on the move
                for change in missing:
                    append_change(root, change)
                return number, [*done, *missing]

    def _carry_out(self, claim: Claim) -> None:
        """Make a change; doing it again changes nothing.

        Raises:
            SettingsError: If MLflow cannot be used, or the version is gone.
        """
        root, change = self.stores.root, claim.change
        version = self.version(change.after or 0)
        name, number = self._require_registered(), str(version.number)
        self.tag(version, f"{_CHANGE_TAG}.{change.alias}", json.dumps(change.to_json()))
        if not root.exists(claim.is_carried_out_at):
            self._client.set_registered_model_alias(name, change.alias, number)
            append_change(root, change, claim.stamp)
        newest = changes_of(read_history(root), change.alias)[-1:]
        if newest and newest[0].after not in (
            change.after,
            self._number_of(change.alias),
        ):
            # This process slept while others did its work, and went on.
            after = str(newest[0].after)
            self._client.set_registered_model_alias(name, change.alias, after)

    def _unrecorded(self, recorded: Sequence[Change]) -> list[Change]:
        changes = []
        for alias in Alias:
            of_alias = [change for change in recorded if change.alias == alias]
            before = of_alias[-1].after if of_alias else None
            after = self._number_of(alias)
            if after != before:
                told = None if after is None else self._told_change(alias, after)
                ids = {change.id for change in recorded}
                if told is None or told.id in ids or told.before != before:
                    told = Change(
                        id=f"{ChangeKind.OUTSIDE}-{alias}-{len(recorded)}-{after}",
                        alias=alias,
                        before=before,
                        after=after,
                        action=Action.PROMOTE,
                        kind=ChangeKind.OUTSIDE,
                        by="unknown",
                        reason="The alias was moved by other means than csfd.",
                    )
                changes.append(told)
        return changes

    def _told_change(self, alias: Alias, number: int) -> Change | None:
        """Return what the version's tag says of how it got the alias."""
        model = self._registered()
        version = None if model is None else self._get_version(str(model.name), number)
        text = "" if version is None else version.tags.get(f"{_CHANGE_TAG}.{alias}", "")
        origin = f"The tag of version {number}"
        return Change.read(json.loads(text), origin) if text else None

    def _number_of(self, alias: Alias) -> int | None:
        model = self._registered()
        number = None if model is None else model.aliases.get(alias)
        return None if number is None else int(number)

    def _get_version(self, name: str, number: int) -> Version | None:
        from mlflow.exceptions import MlflowException

        try:
            return _to_version(self._client.get_model_version(name, str(number)))
        except MlflowException as error:
            if error.error_code == _ABSENT:
                return None
            raise

    @cached_property
    def _client(self) -> "MlflowClient":
        return open_client(self.tracking_uri)

    def _registered(self) -> "RegisteredModel | None":
        """Return this store's registered model, ``None`` where it has none yet."""
        if not self.is_begun:
            return None
        note = self._read_note()
        model = self._get_model(note.registered_model)
        return model if _belongs(model, note.store_id) else None

    def _require_registered(self) -> str:
        """Return the name of this store's registered model, made if it has none."""
        root, path = self.stores.root, paths.CHAMPION_REGISTRY
        if not self.is_begun:
            note = RegistryNote(store_id=uuid.uuid4().hex, registered_model=NAME)
            root.write_new(path, note.to_bytes())  # or another one's is there by now
        stored_note = self._read_note()
        store_id = stored_note.store_id
        for name in (stored_note.registered_model, _suffixed(store_id)):
            model = self._get_model(name) or self._make_model(name, store_id)
            if not _belongs(model, store_id):
                continue  # of another store
            if stored_note.registered_model != name:
                note = RegistryNote(store_id=store_id, registered_model=name)
                root.write(path, note.to_bytes())
            return name
        raise SettingsError(
            f"MLflow has registered models {NAME} and {_suffixed(store_id)}, but "
            "neither belongs to this store. Use another MLFLOW_TRACKING_URI."
        )

    def _make_model(self, name: str, store_id: str) -> "RegisteredModel | None":
        from mlflow.exceptions import MlflowException

        try:
            self._client.create_registered_model(name, tags={_STORE_TAG: store_id})
        except MlflowException as error:
            if error.error_code != _THERE:
                raise
        return self._get_model(name)

    def _get_model(self, name: str) -> "RegisteredModel | None":
        from mlflow.exceptions import MlflowException

        try:
            return self._client.get_registered_model(name)
        except MlflowException as error:
            if error.error_code == _ABSENT:
                return None
            raise

    def _read_note(self) -> RegistryNote:
        path = paths.CHAMPION_REGISTRY
        return RegistryNote.read(json.loads(self.stores.root.read(path)), path)

    def _training_runs(self, frozen: FrozenEnsemble) -> list[str]:
        """Return the MLflow runs that trained the folds, as far as they are there."""
        experiments = [e.experiment_id for e in self._client.search_experiments()]
        run_ids = []
        for inputs in frozen.inputs:
            query = f"params.inputs = '{inputs}' and attributes.status = 'FINISHED'"
            runs = self._client.search_runs(experiments, query, max_results=1)
            run_ids += [str(run.info.run_id) for run in runs]
        return run_ids


def _suffixed(store_id: str) -> str:
    return f"{NAME}-{store_id[:8]}"


def _to_version(version: "ModelVersion") -> Version:
    tags = dict(version.tags)
    return Version(
        number=int(version.version),
        digest=tags.get(_DIGEST_TAG, ""),
        model=tags.get("csfd.model", "unknown"),
        tags=tags,
    )


def _belongs(model: "RegisteredModel | None", store_id: str) -> bool:
    return model is not None and model.tags.get(_STORE_TAG) == store_id
