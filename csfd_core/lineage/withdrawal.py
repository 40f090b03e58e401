"""Taking a study out, as when a patient withdraws consent.

The record that it was withdrawn is written first: from then on nothing takes the study
up again, even if its files still lie in a source. Then its files are removed, the one
that names its patient's other studies last, and the reports that name or show it. In
what stays, the cards of models, MLflow's runs and Dagster's history, a stand-in takes
the place of its UID. What was cut off is finished by doing it again, or by the next
command. Other studies keep their files, and their folds, which follow from their
patients alone; models that have used the study are named, and keep their weights.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from csfd_core.classification.manifest import drop_study
from csfd_core.errors import SettingsError
from csfd_core.lineage.forward import (
    CLASSIFIER,
    PREDICTED,
    PREDICTION,
    REPORT,
    SEGMENTATION,
    VERSION,
    StudyUsage,
    Use,
    files_of,
    reports_on,
    trace_usage,
)
from csfd_core.lineage.mlflow_records import RecordedRuns
from csfd_core.lineage.redaction import Records, redact_models
from csfd_core.settings import LimitSettings
from csfd_core.store import note_index
from csfd_core.store.label_notes import LabelNote
from csfd_core.store.redaction import Redaction
from csfd_core.store.source import Sources
from csfd_core.store.stores import Stores
from csfd_core.store.withdrawn import Withdrawal
from csfd_core.text import count
from csfd_core.vocabulary import require_uid

INBOX: Final = "inbox"  # who withdraws where a label file names no reader
Say = Callable[[str], object]


def _nobody(_told: str) -> None:
    """Hear nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Consequences:
    """What withdrawing a study means, before it is done.

    ``in_sources`` is where its files lie that csfd never deletes; ``siblings`` are the
    other studies of the same patient.
    """

    usage: StudyUsage
    in_sources: tuple[str, ...]
    siblings: tuple[str, ...]

    @property
    def to_train_again(self) -> list[Use]:
        """Models whose cards name the study: they have learnt from it, or scored it."""
        kinds = (SEGMENTATION, CLASSIFIER, VERSION)
        return [use for kind in kinds for use in self.usage.of_kind(kind)]

    @property
    def to_make_again(self) -> list[Use]:
        """Reports on it, and predictions of others by models that have used it."""
        others = [
            use for use in self.usage.of_kind(PREDICTION) if PREDICTED not in use.how
        ]
        return [*self.usage.of_kind(REPORT), *others]


def foresee(
    stores: Stores, sources: Sources, study_uid: str, recorded: RecordedRuns
) -> Consequences:
    """Say what withdrawing a study means.

    Raises:
        IdentifierError: If ``study_uid`` is no valid UID.
        SettingsError: If neither the store nor a source knows the study.
    """
    usage = trace_usage(stores, study_uid, recorded)
    in_sources = tuple(sources.paths_of(study_uid))
    if not usage.is_known and not in_sources:
        where = " nor ".join(
            str(location) for location in (stores.root, *sources.locations)
        )
        raise SettingsError(
            f"Study {study_uid} is neither in {where}. Check the UID, CSFD_STORE, "
            "CSFD_SOURCE and CSFD_INBOX."
        )
    siblings = tuple(_siblings(stores, study_uid))
    return Consequences(usage=usage, in_sources=in_sources, siblings=siblings)


def withdraw(
    stores: Stores,
    study_uid: str,
    reason: str,
    by: str,
    records: Iterable[Records] = (),
    say: Say = _nobody,
) -> Withdrawal:
    """Remove a study from a store for good; return the record that counts.

    Args:
        stores: Where it is removed.
        study_uid: The study.
        reason: Why.
        by: Who.
        records: What else has recorded studies, as ``all_records`` returns.
        say: Told what these could not remove.

    Raises:
        IdentifierError: If ``study_uid`` is no valid UID.
        SettingsError: If there is no reason.
        SourceError: If something cannot be removed; doing it again goes on.
    """
    uid, told = require_uid(study_uid), " ".join(reason.split())
    if not told:
        raise SettingsError("A withdrawal needs a reason. Say it with --reason.")
    withdrawal = stores.withdrawn.add(Withdrawal(study_uid=uid, reason=told, by=by))
    _remove(stores, uid)
    redaction = Redaction(uid)
    redact_models(stores, redaction)
    for one in records:
        for left in one.forget(redaction):
            say(left)
    stores.withdrawn.finish(uid)
    return withdrawal


def finish_withdrawals(
    stores: Stores, records: Iterable[Records], say: Say = _nobody
) -> int:
    """Finish what was cut off; return how many studies that were.

    Raises:
        SourceError: If something cannot be removed; doing it again goes on.
    """
    cut_off = sorted(stores.withdrawn.unfinished())
    for uid in cut_off:
        withdrawal = stores.withdrawn.read(uid)
        if withdrawal is not None:
            withdraw(stores, uid, withdrawal.reason, withdrawal.by, records, say)
    return len(cut_off)


def _remove(stores: Stores, uid: str) -> None:
    """Remove all that the store holds of a study, and the reports that show it."""
    headers = stores.metadata.path(uid)
    paths = [path for path in files_of(stores, uid) if path != headers]
    for path in [*reports_on(stores, uid), *paths]:
        stores.root.remove(path)
    drop_study(stores.root, uid)
    stores.label_history.drop_study(uid)
    stores.metadata.drop_study(uid)
    stores.root.remove(headers)  # last: it names the patient's other studies
    note_index.drop_study(stores.root, uid)
    for folder in sorted({path.rpartition("/")[0] for path in [*paths, headers]}):
        stores.root.remove_abandoned(folder)  # a killed writer may have left its slices


def withdraw_noted(
    stores: Stores, notes: Iterable[LabelNote], records: Sequence[Records] = ()
) -> str:
    """Withdraw the studies whose label files say so, as ``withdraw`` does.

    Each is withdrawn once; what was cut off is finished, whoever began it. Where more
    are asked for at once than a person would, none is: a mistake or a malicious file
    would empty the store for good.

    Args:
        stores: Where they are removed.
        notes: Label files of all sources.
        records: What else has recorded studies, as ``all_records`` returns.

    Returns:
        What was done or was not, in sentences; empty: nothing was asked for.

    Raises:
        SourceError: If something cannot be removed; doing it again goes on.
    """
    told: list[str] = []
    finished = finish_withdrawals(stores, records, told.append)
    asked = {note.study_uid: note for note in notes if note.withdrawn is not None}
    withdrawn = stores.withdrawn.study_uids()
    new = sorted(set(asked) - withdrawn)
    most = LimitSettings.read().max_withdrawals
    if len(new) > most:
        told.append(
            f"Label files withdraw {count(len(new), 'study')} at once, more than "
            f"{most}; none is. If that is meant, raise CSFD_MAX_WITHDRAWALS, or say "
            f"csfd withdraw for each. The first is {new[0]}."
        )
        return " ".join(told)
    cut_off = [
        uid
        for uid in sorted(set(asked) & withdrawn)
        if files_of(stores, uid) or reports_on(stores, uid)
    ]
    for uid in (*cut_off, *new):
        note = asked[uid]
        reason, by = note.withdrawn or "", note.reader or INBOX
        withdraw(stores, uid, reason, by, records, told.append)
    if finished:
        told.append(f"{count(finished, 'withdrawal', 'was', 'were')} finished.")
    if done := len(cut_off) + len(new):
        told.append(f"{count(done, 'study', 'was', 'were')} withdrawn by label files.")
    return " ".join(told)


def _siblings(stores: Stores, study_uid: str) -> list[str]:
    record = stores.metadata.read_record(study_uid)
    has_table = stores.metadata.read_studies_inputs() is not None
    if record is None or record.patient_key is None or not has_table:
        return []
    studies = stores.metadata.read_studies()
    of_patient = studies.loc[studies["patient_key"] == record.patient_key, "study_uid"]
    return sorted({str(uid) for uid in of_patient} - {study_uid})
