"""Numbers in sentences."""

import pytest

from csfd_core.text import count


@pytest.mark.parametrize(
    ("number", "noun", "verbs", "told"),
    [
        (0, "study", (), "0 studies"),
        (1, "study", (), "1 study"),
        (1, "labelled study", ("has", "have"), "1 labelled study has"),
        (2, "study", ("has", "have"), "2 studies have"),
        (3, "fractured vertebra", (), "3 fractured vertebrae"),
        (2, "false alarm", (), "2 false alarms"),
        (2, "subject", ("may",), "2 subjects may"),
    ],
)
def test_a_number_goes_with_its_noun_and_verb(
    number: int, noun: str, verbs: tuple[str, ...], told: str
) -> None:
    assert count(number, noun, *verbs) == told
