"""The vault: what senders call their studies, sealed, and given back unharmed."""

import io
import time

import pytest
import sqlalchemy as sa
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import dcmread
from pydicom.dataset import Dataset
from support.delivered import (
    FRAME_UID,
    NAMES,
    VAULT_KEY,
    bring_study,
    named_files,
    set_vault,
)
from support.dicom_studies import STUDY_UID
from support.web import WebUnderTest

from csfd_core.deid.deidentify import Deidentified, deidentify
from csfd_core.errors import StoreError
from csfd_core.settings import DicomSettings
from csfd_core.web.database import vault as table
from csfd_core.web.security.sessions import CSRF_HEADER
from csfd_core.web.vault import (
    Original,
    StudyIdentity,
    Vault,
    _dataset,
    original_of,
    with_identity,
)

SECRET = b"s" * 32
OTHER_KEY = "11" * 32
NAMED = (  # character set, name as bytes, name as text (PS3.5 annexes H and I)
    (
        "\\ISO 2022 IR 87",
        b"Yamada^Tarou=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B",
        "山田^太郎",
    ),
    (
        "\\ISO 2022 IR 149",
        b"Hong^Gildong=\x1b$)C\xfb\xf3^\x1b$)C\xd1\xce\xd4\xd7",
        "洪^吉洞",
    ),
    ("ISO_IR 144", "Люкceмбypг".encode("iso8859_5", "replace"), "Лю"),
    ("ISO_IR 192", "Wang^XiaoDong=王^小东".encode(), "王^小东"),
    ("ISO_IR 100", "Äneas^Rüdiger".encode("latin-1"), "Äneas^Rüdiger"),
)


def a_file(edit: object = None) -> tuple[bytes, Deidentified]:
    raw = named_files(edit)[0]  # type: ignore[arg-type]
    return raw, deidentify(raw, SECRET)


def a_vault(key: str = VAULT_KEY, days: int = 30) -> Vault:
    return Vault(bytes.fromhex(key), days)


def header_of(found: Deidentified) -> Dataset:
    return dcmread(io.BytesIO(found.content), stop_before_pixels=True)


def test_without_a_key_there_is_no_vault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CSFD_VAULT_KEY", raising=False)
    assert Vault.open(DicomSettings.read()) is None
    set_vault(monkeypatch)
    assert Vault.open(DicomSettings.read()) is not None


def test_what_is_sealed_is_aes_gcm_of_the_key_and_bound_to_its_study() -> None:
    raw, found = a_file()
    original = original_of(raw, found)
    sealed = a_vault().seal(original)
    plain = AESGCM(bytes.fromhex(VAULT_KEY)).decrypt(
        sealed[:12], sealed[12:], found.study_uid.encode()
    )
    assert plain
    assert a_vault().unseal(sealed, found.study_uid) == original
    assert a_vault().unseal(sealed, "1.2.3") is None
    assert a_vault(OTHER_KEY).unseal(sealed, found.study_uid) is None
    changed = bytearray(sealed)
    changed[20] ^= 1
    assert a_vault().unseal(bytes(changed), found.study_uid) is None
    assert a_vault().seal(original) != sealed  # another nonce


@settings(max_examples=50, deadline=None)
@given(
    elements=st.dictionaries(st.integers(0, 2**32 - 1), st.text(), max_size=4),
    uids=st.dictionaries(st.text(), st.text(), max_size=4),
    study_uid=st.text(max_size=64),
)
def test_any_original_comes_back_and_does_not_show(
    elements: dict[int, str], uids: dict[str, str], study_uid: str
) -> None:
    original = Original(study_uid=study_uid, elements=elements, uids=uids)
    sealed = a_vault().seal(original)
    assert a_vault().unseal(sealed, study_uid) == original


@given(content=st.binary(max_size=64))
def test_whatever_was_not_sealed_here_is_not_opened(content: bytes) -> None:
    assert a_vault().unseal(content, "1.2.3") is None


def test_headers_get_back_what_their_sender_called_them(
    web: WebUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_vault(monkeypatch)
    uid = bring_study(web.services)
    files = named_files()
    keyed = [
        dcmread(io.BytesIO(web.services.inbox.read(one.path)), stop_before_pixels=True)
        for one in web.services.inbox.entries(f"train_images/{uid}")
    ]
    with web.services.database.transaction() as connection:
        identity = a_vault().read(connection, uid)
    assert identity is not None
    assert "Zwetajewa" not in repr(identity)
    named = with_identity(keyed, identity)
    by_uid = {one.SOPInstanceUID: one for one in named}
    for raw in files:
        sent = dcmread(io.BytesIO(raw), stop_before_pixels=True)
        back = by_uid[sent.SOPInstanceUID]
        assert back.StudyInstanceUID == STUDY_UID
        assert back.SeriesInstanceUID == sent.SeriesInstanceUID
        assert back.FrameOfReferenceUID == FRAME_UID
        assert {name: str(back[name].value) for name in NAMES} == NAMES
        assert back.ImagePositionPatient == sent.ImagePositionPatient
        assert "PatientIdentityRemoved" not in back
        assert "DeidentificationMethodCodeSequence" not in back
    assert keyed[0].PatientID.startswith("csfd-")  # what was given is as it was


@pytest.mark.parametrize(("charset", "raw_name", "shown"), NAMED)
def test_a_name_in_any_character_set_keeps_its_bytes(
    charset: str, raw_name: bytes, shown: str
) -> None:
    def edit(one: Dataset) -> None:
        one.SpecificCharacterSet = charset.split("\\")
        one.PatientName = "@" * len(raw_name)

    file = named_files(edit)[0].replace(b"@" * len(raw_name), raw_name)
    found = deidentify(file, SECRET)
    original = original_of(file, found)
    identity = _identity(original)
    (back,) = with_identity([header_of(found)], identity)
    sink = io.BytesIO()
    back.file_meta = header_of(found).file_meta
    back.save_as(sink, enforce_file_format=True)
    assert raw_name in sink.getvalue()
    again = dcmread(io.BytesIO(sink.getvalue()))
    assert shown in str(again.PatientName)


def test_what_the_sender_did_not_say_is_empty_and_not_that_of_csfd() -> None:
    def edit(one: Dataset) -> None:
        for name in NAMES:
            delattr(one, name)

    raw, found = a_file(edit)
    (back,) = with_identity([header_of(found)], _identity(original_of(raw, found)))
    assert back.PatientID == ""
    assert back.PatientName == ""
    assert "StudyDescription" not in back


def test_an_image_that_the_vault_does_not_know_is_not_named_by_halves() -> None:
    raw, found = a_file()
    identity = _identity(original_of(raw, found))
    other = deidentify(named_files()[1], SECRET)
    with pytest.raises(StoreError, match="does not know every image"):
        with_identity([header_of(other)], identity)


@pytest.mark.parametrize("uid", ["1.2.0003.4", "1.2." + "3" * 61])
def test_a_uid_that_only_some_archives_accept_comes_back_as_it_was(uid: str) -> None:
    def edit(one: Dataset) -> None:
        one["StudyInstanceUID"]._value = uid

    raw = named_files(edit)[0]
    found = deidentify(raw, SECRET)
    (back,) = with_identity([header_of(found)], _identity(original_of(raw, found)))
    assert str(back.StudyInstanceUID) == uid


def test_a_later_transfer_adds_its_images_and_its_word_counts(
    web: WebUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_vault(monkeypatch)
    vault = a_vault()

    def correct(one: Dataset) -> None:
        one.PatientName = "Corrected^Name"

    first, later = named_files()[:3], named_files(correct)[3:5]
    with web.services.database.transaction() as connection:
        for files in (first, later):
            found = [deidentify(raw, SECRET) for raw in files]
            uid = found[0].study_uid
            sealed = [
                vault.seal(original_of(raw, one))
                for raw, one in zip(files, found, strict=True)
            ]
            vault.keep(connection, uid, [*sealed, b"damaged"])
        identity = vault.read(connection, uid)
    assert identity is not None
    assert identity.is_certain
    assert identity.patient_and_study.PatientName == "Corrected^Name"
    headers = [header_of(deidentify(raw, SECRET)) for raw in (*first, *later)]
    assert len(with_identity(headers, identity)) == 5


def test_images_of_two_patients_in_one_study_are_not_certain(
    web: WebUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    def mix(one: Dataset) -> None:
        if one.InstanceNumber == 2:
            one.PatientID = "SOMEBODY-ELSE"

    set_vault(monkeypatch)
    files = named_files(mix)[:3]
    found = [deidentify(raw, SECRET) for raw in files]
    sealed = [
        a_vault().seal(original_of(r, f)) for r, f in zip(files, found, strict=True)
    ]
    with web.services.database.transaction() as connection:
        a_vault().keep(connection, found[0].study_uid, sealed)
        identity = a_vault().read(connection, found[0].study_uid)
    assert identity is not None
    assert not identity.is_certain


def test_nothing_of_it_can_be_read_in_the_database(
    web: WebUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_vault(monkeypatch)
    bring_study(web.services)
    home = web.services.settings.home
    written = b"".join(path.read_bytes() for path in home.glob("web.db*"))
    assert len(written) > 10_000
    for text in (*NAMES.values(), STUDY_UID):
        if len(text) > 1:
            assert text.encode() not in written


def test_another_key_opens_nothing_and_says_so(
    web: WebUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_vault(monkeypatch)
    uid = bring_study(web.services)
    with (
        web.services.database.transaction() as connection,
        pytest.raises(StoreError, match="cannot be opened with this CSFD_VAULT_KEY"),
    ):
        a_vault(OTHER_KEY).read(connection, uid)


def test_it_forgets_after_its_days(
    web: WebUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_vault(monkeypatch)
    uid = bring_study(web.services)
    with web.services.database.transaction() as connection:
        expires_at = connection.scalar(sa.select(table.c.expires_at))
        assert expires_at == pytest.approx(time.time() + 30 * 86400, abs=60)
        assert Vault.forget_expired(connection) == 0
        connection.execute(table.update().values(expires_at=time.time() - 1))
        assert a_vault().read(connection, uid) is None  # before anybody has cleaned up
        assert Vault.forget_expired(connection) == 1
        assert connection.scalar(sa.select(sa.func.count()).select_from(table)) == 0


def test_a_withdrawn_study_is_forgotten_at_once(
    web: WebUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_vault(monkeypatch)
    uid = bring_study(web.services)
    form = {"csrf": web.client.headers[CSRF_HEADER], "reason": "consent taken back"}
    answer = web.client.post(f"/studies/{uid}/withdraw", data=form)
    assert answer.status_code == 303
    with web.services.database.transaction() as connection:
        assert connection.scalar(sa.select(sa.func.count()).select_from(table)) == 0


def _identity(original: Original) -> StudyIdentity:
    return StudyIdentity(
        patient_and_study=_dataset(original.elements),
        uids=original.uids,
        is_certain=True,
    )
