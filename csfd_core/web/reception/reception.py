"""Takes in slices that come over the network, one at a time, by C-STORE or STOW-RS.

A slice is de-identified in memory and written durably; only then its sender is told
that it is kept. The study is accepted when no more slices come (``settle``).
"""

import errno
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import sqlalchemy as sa

from csfd_core.deid.deidentify import Deidentified, deidentify
from csfd_core.deid.identities import keyed_uid
from csfd_core.errors import CsfdError
from csfd_core.ingest.patients import read_secret
from csfd_core.settings import DicomSettings
from csfd_core.store.layout import IMAGES_FOLDER
from csfd_core.text import count
from csfd_core.vocabulary import own_uid
from csfd_core.web.database import studies
from csfd_core.web.reception.settling import settle_study
from csfd_core.web.reception.twins import is_same_image
from csfd_core.web.reception.waiting import SUFFIX, Waiting, waiting_studies
from csfd_core.web.review.label_files import is_withdrawn
from csfd_core.web.services import Services
from csfd_core.web.study_states import OPEN
from csfd_core.web.vault import Vault, original_of

_NO_SPACE: Final = (errno.ENOSPC, errno.EDQUOT)
_KNOWN_S: Final = 5.0  # for which what the inbox holds of a study is not asked again
_MOST_KNOWN: Final = 64  # studies
_log = logging.getLogger(__name__)


class ConflictError(CsfdError):
    """A slice has the SOPInstanceUID of another one."""


class MismatchError(CsfdError):
    """A slice has another SOPInstanceUID than its sender has announced."""


class WithdrawnError(CsfdError):
    """A slice is of a study that was withdrawn."""


class NoRoomError(CsfdError):
    """There is no room: the disk is full, or too many studies wait."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sender:
    """Who sends a slice.

    Attributes:
        name: AE title, or name of a token.
        priority: Of its studies: 0 routine, 1 urgent, 2 STAT.
        keeps_identity: Whether the vault keeps how it calls its studies, so that
            results can be sent back.
    """

    name: str
    priority: int = 0
    keeps_identity: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """A slice that is kept: whole, on the disk.

    Attributes:
        study_uid: Keyed.
        sop_uid: Keyed.
        is_new: Whether it had not come before.
    """

    study_uid: str
    sop_uid: str
    is_new: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class _Known:
    """What was known of a study at a moment."""

    at: float  # monotonic
    empty: tuple[int, int] | None  # state of the empty folder where it waits
    is_withdrawn: bool
    in_inbox: frozenset[str]


class Reception:
    """Keeps slices that come over the network; used by several threads."""

    def __init__(self, services: Services) -> None:
        """Take where everything is.

        Raises:
            SettingsError: If a setting cannot be used.
        """
        settings = DicomSettings.read()
        self._services = services
        self._secret = read_secret(services.settings.key_file)
        self._vault = Vault.open(settings)
        self._quiet_s = settings.quiet_s
        self._seen: dict[str, tuple[object, float]] = {}  # state of a folder, since
        self._known: dict[str, _Known] = {}
        self._lock = threading.Lock()

    def keep(self, raw: bytes, sender: Sender, announced: str = "") -> Kept:
        """Keep one slice; when this returns, it is on the disk.

        The same slice may come again: it is kept once.

        Args:
            raw: The whole file.
            sender: Who sends it.
            announced: SOPInstanceUID under which it was announced, if it was.

        Raises:
            RefusedError: If it is no slice of a CT that can be used; it says why.
            ConflictError: If another slice of its SOPInstanceUID was kept before.
            MismatchError: If it is another slice than announced.
            WithdrawnError: If its study was withdrawn.
            NoRoomError: If there is no room for it.
        """
        keyed = deidentify(raw, self._secret)
        expected = keyed_uid(own_uid(announced.strip(" \0")), self._secret)
        if announced and expected != keyed.sop_uid:
            raise MismatchError(
                "The file has another SOPInstanceUID than was announced. Export the "
                "study from the archive again."
            )
        self._know(keyed.study_uid)
        try:
            return self._keep(raw, keyed, sender)
        except OSError as error:
            if error.errno not in _NO_SPACE:
                raise
            raise NoRoomError(
                "The disk of csfd is full: the image was not kept. Ask for room to be "
                "made, and send again."
            ) from None

    def _keep(self, raw: bytes, keyed: Deidentified, sender: Sender) -> Kept:
        waiting = Waiting(self._services.settings, keyed.study_uid)
        if waiting.state() is None:
            self._require_few()
        vault = self._vault if sender.keeps_identity else None
        with waiting.held():
            # Empty: another process may just have accepted what was in it.
            empty = waiting.state() if waiting.is_empty() else None
            facts = self._know(keyed.study_uid, empty)
            is_new = self._add(waiting, keyed, facts)
            if vault is not None:
                waiting.add_identity(keyed.sop_uid, vault.seal(original_of(raw, keyed)))
            waiting.tell(max(sender.priority, keyed.urgency), keyed.references)
            waiting.sync()
        return Kept(study_uid=keyed.study_uid, sop_uid=keyed.sop_uid, is_new=is_new)

    def _add(self, waiting: Waiting, keyed: Deidentified, facts: _Known) -> bool:
        name = f"{keyed.sop_uid}{SUFFIX}"
        if name in facts.in_inbox:
            path = f"{IMAGES_FOLDER}/{keyed.study_uid}/{name}"
            before = self._services.inbox.read(path)
        elif waiting.add(keyed.sop_uid, keyed.content):
            return True
        else:
            before = waiting.find(keyed.sop_uid) or b""
        if not is_same_image(before, keyed.content):
            raise ConflictError(
                "Another image with this SOPInstanceUID was kept before. Export the "
                "study from the archive again."
            )
        return False

    def hold(self, study_uid: str) -> int:
        """Let a study not be accepted as long as its sender goes on.

        Args:
            study_uid: Keyed.

        Returns:
            A descriptor; closing it lets go, and so does the end of the process.
        """
        return Waiting(self._services.settings, study_uid).hold()

    def settle(
        self,
        is_busy: Callable[[str], bool] = lambda _uid: False,
        quiet_s: float | None = None,
    ) -> list[str]:
        """Accept every study that was quiet long enough and that nobody holds.

        How long it was quiet is measured by looking again and again: a clock that is
        set changes nothing. It may be called by several processes, and cut off.

        Args:
            is_busy: Says of a study whether it is still being sent.
            quiet_s: Seconds without a slice; ``None``: CSFD_QUIET_S.

        Returns:
            The studies that were accepted, or whose slices were there already.
        """
        least_s = self._quiet_s if quiet_s is None else quiet_s
        settled = []
        uids = waiting_studies(self._services.settings)
        for uid in uids:
            waiting = Waiting(self._services.settings, uid)
            if self._quiet_for(waiting) < least_s or is_busy(uid):
                continue
            with waiting.alone() as is_alone:
                if is_alone and self._quiet_for(waiting) >= least_s:
                    settled += self._settle(waiting)
        with self._lock:
            self._seen = {u: seen for u, seen in self._seen.items() if u in set(uids)}
        return settled

    def forget(self, study_uid: str) -> None:
        """Remove what waits of a study, as when it is withdrawn."""
        waiting = Waiting(self._services.settings, study_uid)
        with waiting.alone() as is_alone:
            if is_alone:
                waiting.remove()

    def _settle(self, waiting: Waiting) -> list[str]:
        try:
            is_settled = settle_study(self._services, waiting, self._vault)
        except (CsfdError, OSError, sa.exc.SQLAlchemyError) as error:
            # Its slices stay where they are; the next look tries again.
            _log.warning("a study cannot be accepted: %s", type(error).__name__)
            self._look_again(waiting)
            return []
        finally:
            with self._lock:
                self._known.pop(waiting.study_uid, None)
        return [waiting.study_uid] if is_settled else []

    def _quiet_for(self, waiting: Waiting) -> float:
        """Return for how many seconds nothing has come, as far as this has seen."""
        state, now = waiting.state(), time.monotonic()
        with self._lock:
            before, since = self._seen.get(waiting.study_uid, (None, now))
            if state != before:
                since = now
                self._seen[waiting.study_uid] = (state, since)
        return now - since

    def _look_again(self, waiting: Waiting) -> None:
        with self._lock:
            self._seen.pop(waiting.study_uid, None)

    def _know(self, study_uid: str, empty: tuple[int, int] | None = None) -> _Known:
        """Return what is known of a study; asked again every few seconds.

        Args:
            study_uid: Keyed.
            empty: State of the folder where it waits, if nothing is in it; it is asked
                again where that is another one than before.

        Raises:
            WithdrawnError: If it was withdrawn.
        """
        now = time.monotonic()
        with self._lock:
            facts = self._known.get(study_uid)
        is_emptied = facts is not None and empty not in (None, facts.empty)
        if facts is None or is_emptied or now - facts.at >= _KNOWN_S:
            facts = self._ask(study_uid, now, empty)
        if facts.is_withdrawn:
            raise WithdrawnError(
                "The study was withdrawn and cannot be taken up again. Ask an "
                "administrator."
            )
        return facts

    def _ask(self, study_uid: str, now: float, empty: tuple[int, int] | None) -> _Known:
        """Find out what is known of a study."""
        with self._services.database.transaction() as connection:
            same = studies.c.study_uid == study_uid
            is_accepted = connection.scalar(sa.select(sa.true()).where(same))
        entries = self._services.inbox.entries(f"{IMAGES_FOLDER}/{study_uid}")
        facts = _Known(
            at=now,
            empty=empty,
            is_withdrawn=is_withdrawn(self._services, study_uid),
            in_inbox=frozenset(e.name for e in entries if is_accepted),
        )
        with self._lock:
            if len(self._known) >= _MOST_KNOWN:
                self._known.clear()
            self._known[study_uid] = facts
        return facts

    def _require_few(self) -> None:
        """Require that few enough studies wait for their prediction.

        Raises:
            NoRoomError: If it is not so.
        """
        with self._services.database.transaction() as connection:
            is_open = studies.c.state.in_(OPEN)
            open_count = sa.select(sa.func.count()).select_from(studies).where(is_open)
            number = connection.scalar(open_count) or 0
        number += len(waiting_studies(self._services.settings))
        if number >= self._services.web.max_waiting:
            raise NoRoomError(
                f"{count(number, 'study', 'waits', 'wait')} for a prediction already "
                "(CSFD_WEB_MAX_WAITING). Send again when some are done."
            )
