"""What a peer has made of the objects that were sent to it."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from pydicom.uid import UID

from csfd_core.text import count, join

CONNECT_S: Final = 10.0
ANSWER_S: Final = 60.0  # for one object; an archive may write it to tape


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """The answer of a peer.

    Attributes:
        stored: SOPInstanceUIDs of what it says it has stored.
        missing: Of what it has not, or has not said.
        not_taken: Names of kinds of objects that it takes at no time.
        is_reached: Whether it answered at all.
        told: A sentence for administrators; nothing of the patient, nothing that the
            peer has written.
    """

    stored: frozenset[str] = frozenset()
    missing: frozenset[str] = frozenset()
    not_taken: frozenset[str] = frozenset()
    is_reached: bool = True
    told: str = ""

    @property
    def is_complete(self) -> bool:
        """Whether all that it takes is stored, and that is something."""
        return bool(self.stored) and not self.missing


def unreached(told: str, sop_uids: Iterable[str]) -> Sent:
    """Return that nobody has answered."""
    return Sent(missing=frozenset(sop_uids), is_reached=False, told=told)


@dataclass(slots=True)
class Answers:
    """Collects the answers for single objects.

    Attributes:
        status: By SOPInstanceUID, of what has failed.
        warned: By SOPInstanceUID, of what was stored with a remark.
    """

    stored: set[str] = field(default_factory=set)
    not_taken: set[str] = field(default_factory=set)
    status: dict[str, int] = field(default_factory=dict)
    warned: dict[str, int] = field(default_factory=dict)

    def to_sent(self, sop_uids: Iterable[str], why: str = "") -> Sent:
        """Return what they come to.

        Args:
            sop_uids: Of all that the peer could have stored.
            why: A sentence on what is missing without a status of its own.
        """
        missing = frozenset(sop_uids) - self.stored
        told = [_told_stored(len(self.stored))] if self.stored else []
        if self.status:
            told.append(f"Refused with status {_statuses(self.status)}.")
        if why:
            told.append(why)
        if self.warned:
            told.append(f"Stored with a remark: status {_statuses(self.warned)}.")
        if self.not_taken:
            kinds = join(sorted(self.not_taken))
            told.append(f"This peer takes no {kinds}.")
        return Sent(
            stored=frozenset(self.stored),
            missing=missing,
            not_taken=frozenset(self.not_taken),
            told=" ".join(told),
        )


def name_of_class(sop_class_uid: str) -> str:
    """Return what a kind of objects is called."""
    return UID(sop_class_uid).name.removesuffix(" Storage")


def _told_stored(number: int) -> str:
    return f"{count(number, 'object')} stored."


def _statuses(given: Mapping[str, int]) -> str:
    return join(f"0x{status:04X}" for status in sorted(set(given.values())))
