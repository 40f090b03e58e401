"""Sends objects to a peer by STOW-RS (PS3.18 section 10.5).

With a Content-Length, as chunked bodies vanish in some archives, and along no redirect:
what names a patient goes where an administrator has said, and nowhere else.
"""

import base64
import http.client
import io
import json
import secrets
import ssl
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final
from urllib.parse import SplitResult, unquote, urlsplit

from pydicom.dataset import Dataset

from csfd_core.errors import SettingsError
from csfd_core.network.sending import ANSWER_S, CONNECT_S, Answers, Sent, unreached
from csfd_core.network.tls_client import client_context
from csfd_core.settings import DicomSettings

_JSON: Final = "application/dicom+json"
_MOST_ANSWER: Final = 2**22  # bytes
_REFERENCED: Final = "00081199"  # ReferencedSOPSequence
_FAILED: Final = "00081198"  # FailedSOPSequence
_SOP_UID: Final = "00081155"  # ReferencedSOPInstanceUID
_REASON: Final = "00081197"  # FailureReason
_WARNING: Final = "00081196"  # WarningReason
_DUPLICATE: Final = 0x0111
_STORED: Final = (200, 201, 202)
_JUDGED: Final = (*_STORED, 400, 409)  # answers that may name single objects
_FAILURE: Final = 0x0110


class StowClient:
    """Speaks to the DICOMweb service of one peer."""

    def __init__(
        self,
        settings: DicomSettings,
        url: str,
        *,
        connect_s: float = CONNECT_S,
        answer_s: float = ANSWER_S,
    ) -> None:
        """Take who speaks to whom.

        Args:
            settings: Of this node.
            url: Base of the service, with user and password where it wants them.
            connect_s: Seconds for a connection.
            answer_s: Seconds without a byte, once it is there.
        """
        self._settings = settings
        self._url = urlsplit(url)
        self._connect_s = connect_s
        self._answer_s = answer_s

    def echo(self) -> str:
        """Ask whether the service answers a search; return a sentence."""
        try:
            status, _ = self._ask("GET", "/studies?limit=1", None, {"Accept": _JSON})
        except (OSError, SettingsError, http.client.HTTPException) as error:
            return _told(error)
        if status in (200, 204):
            return "It answers."
        return _told_status(status)

    def send(self, objects: Sequence[Dataset]) -> Sent:
        """Send objects in one request.

        Args:
            objects: With their file meta information.
        """
        uids = [str(one.SOPInstanceUID) for one in objects]
        boundary = secrets.token_hex(16)
        headers = {
            "Accept": _JSON,
            "Content-Type": 'multipart/related; type="application/dicom"; '
            f"boundary={boundary}",
        }
        try:
            body = _multipart(objects, boundary)
            status, answer = self._ask("POST", "/studies", body, headers)
        except (OSError, SettingsError, http.client.HTTPException) as error:
            return unreached(_told(error), uids)
        if status not in _JUDGED:
            return unreached(_told_status(status), uids)
        answers = read_answer(answer, uids)
        why = ""
        if set(uids) - answers.stored - set(answers.status):
            why = (
                "It does not say of every object that it is stored."
                if status in _STORED
                else _told_status(status)
            )
        return answers.to_sent(uids, why)

    def _ask(
        self, method: str, path: str, body: bytes | None, headers: Mapping[str, str]
    ) -> tuple[int, bytes]:
        connection = self._connection()
        try:
            connection.connect()
            if connection.sock is not None:
                connection.sock.settimeout(self._answer_s)
            target = f"{self._url.path.rstrip('/')}{path}"
            given = {**headers, **_authorization(self._url)}
            connection.request(method, target, body, given)
            response = connection.getresponse()
            return response.status, response.read(_MOST_ANSWER)
        finally:
            connection.close()

    def _connection(self) -> http.client.HTTPConnection:
        host, port = self._url.hostname or "", self._url.port
        if self._url.scheme == "http":
            return http.client.HTTPConnection(host, port, timeout=self._connect_s)
        return http.client.HTTPSConnection(
            host, port, timeout=self._connect_s, context=client_context(self._settings)
        )


def read_answer(answer: bytes, sop_uids: Iterable[str]) -> Answers:
    """Return what a store response says of single objects (PS3.18 annex I.2).

    Args:
        answer: DICOM JSON. Anything else says nothing.
        sop_uids: Of what was sent; nothing else counts.
    """
    wanted, answers = set(sop_uids), Answers()
    try:
        told = json.loads(answer)
    except (ValueError, RecursionError):
        return answers
    told = told[0] if isinstance(told, list) and told else told
    for item in _items(told, _REFERENCED):
        uid = str(_value(item, _SOP_UID))
        if uid in wanted:
            answers.stored.add(uid)
            if isinstance(remark := _value(item, _WARNING), int):
                answers.warned[uid] = remark
    for item in _items(told, _FAILED):
        uid, reason = str(_value(item, _SOP_UID)), _value(item, _REASON)
        if reason == _DUPLICATE and uid in wanted:
            answers.stored.add(uid)
        elif uid in wanted - answers.stored:
            answers.status[uid] = reason if isinstance(reason, int) else _FAILURE
    return answers


def _items(told: object, tag: str) -> list[Any]:
    element = told.get(tag) if isinstance(told, dict) else None
    values = element.get("Value") if isinstance(element, dict) else None
    return values if isinstance(values, list) else []


def _value(item: object, tag: str) -> object:
    values = _items(item, tag)
    return values[0] if values else None


def _multipart(objects: Sequence[Dataset], boundary: str) -> bytes:
    sink = io.BytesIO()
    for one in objects:
        sink.write(f"--{boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode())
        part = io.BytesIO()
        one.save_as(part, enforce_file_format=True)
        sink.write(part.getbuffer())
        sink.write(b"\r\n")
    sink.write(f"--{boundary}--\r\n".encode())
    return sink.getvalue()


def _authorization(url: SplitResult) -> dict[str, str]:
    if url.username is None:
        return {}
    plain = f"{unquote(url.username)}:{unquote(url.password or '')}".encode()
    return {"Authorization": f"Basic {base64.b64encode(plain).decode()}"}


def _told(error: Exception) -> str:
    if isinstance(error, SettingsError):
        return str(error)
    if isinstance(error, ssl.SSLError):
        return "Its certificate is not believed, or it wants another one of this node."
    if isinstance(error, TimeoutError):
        return "It does not answer in time."
    return "Nobody answers there by HTTP."


def _told_status(status: int) -> str:
    if status in (401, 403):
        return f"It refuses access with HTTP {status}: check user and password."
    if 300 <= status < 400:
        return f"It sends elsewhere (HTTP {status}): name its address as it is."
    return f"It answers with HTTP {status}."
