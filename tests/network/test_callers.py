"""Who may send, from where, and how urgent."""

import pytest

from csfd_core.errors import SettingsError
from csfd_core.network.callers import Callers, require_known_callers
from csfd_core.settings import DicomSettings


def callers(text: str = "", priorities: str = "") -> Callers:
    return Callers.of(DicomSettings.read(callers=text, priorities=priorities))


def test_nobody_is_named_and_everybody_may_send():
    found = callers()
    assert found.is_open
    assert found.allow("ANY", "203.0.113.9")
    assert found.allow_address("203.0.113.9")


@pytest.mark.parametrize(
    ("title", "address", "expected"),
    [
        ("CT1", "10.0.0.7", True),
        ("CT1", "10.0.0.8", False),
        ("CT1", "::ffff:10.0.0.7", True),
        ("CT2", "203.0.113.9", True),
        ("CT 3", "10.1.200.3", True),
        ("CT 3", "10.2.0.1", False),
        ("CT4", "2001:db8::5", True),
        ("CT4", "2001:db9::5", False),
        ("CT4", "10.0.0.7", False),
        ("ct1", "10.0.0.7", False),
        ("", "10.0.0.7", False),
        ("CT1", "no address", False),
    ],
)
def test_who_is_named_may_send_from_where_it_is_named(title, address, expected):
    text = "CT1@10.0.0.7, CT2, CT 3@10.1.0.0/16, CT4@2001:db8::/32, CT1@10.0.9.9"
    assert callers(text).allow(title, address) is expected


def test_an_address_is_welcome_where_somebody_may_send_from_it():
    found = callers("CT1@10.0.0.7,CT3@10.1.0.0/16")
    assert found.allow_address("10.1.2.3")
    assert not found.allow_address("10.2.2.3")
    assert callers("CT1@10.0.0.7,CT2").allow_address("10.2.2.3")


def test_priorities_belong_to_titles():
    found = callers(priorities="ER=2, CT1=1")
    assert [found.priority_of(title) for title in ("ER", "CT1", "CT2")] == [2, 1, 0]


@pytest.mark.parametrize(
    "text",
    ["SEVENTEEN_LETTERS", "CT\\1", "CT1@", "CT1@hospital", "@10.0.0.7", "CT1@10"],
)
def test_callers_that_are_written_wrongly_are_told(text):
    with pytest.raises(SettingsError, match="CSFD_DICOM_CALLERS"):
        callers(text)


@pytest.mark.parametrize("text", ["ER", "ER=3", "ER=0", "=2", "ER=two"])
def test_priorities_that_are_written_wrongly_are_told(text):
    with pytest.raises(SettingsError, match="CSFD_DICOM_PRIORITIES"):
        callers(priorities=text)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1"])
def test_others_must_be_named_before_they_can_reach_the_node(host):
    with pytest.raises(SettingsError, match="any of them could send"):
        require_known_callers(DicomSettings.read(host=host))
    require_known_callers(DicomSettings.read(host=host, callers="CT1"))


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost"])
def test_this_machine_alone_needs_no_names(host):
    require_known_callers(DicomSettings.read(host=host))
