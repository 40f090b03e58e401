"""Numbers, names and sentences as text."""

import math
from pathlib import Path
from types import SimpleNamespace

import jinja2
import pytest

from csfd_core import registry, reports
from csfd_core.text import (
    Prose,
    agree,
    chance,
    count,
    interval,
    join,
    number,
    p_value,
    percent,
    plural,
    span,
)

NAN = math.nan


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
        (2, "box", (), "2 boxes"),
        (2, "miss", (), "2 misses"),
    ],
)
def test_a_number_goes_with_its_noun_and_verb(
    number: int, noun: str, verbs: tuple[str, ...], told: str
) -> None:
    assert count(number, noun, *verbs) == told


@pytest.mark.parametrize(
    ("probability", "told"),
    [
        (0.0, "below 0.1 %"),
        (0.0009, "below 0.1 %"),
        (0.001, "0.1 %"),
        (0.0994, "9.9 %"),
        (0.0996, "10 %"),
        (0.5, "50 %"),
        (0.9, "90 %"),
        (0.9126, "91.3 %"),
        (0.999, "99.9 %"),
        (1.0, "above 99.9 %"),
        (NAN, "not defined"),
    ],
)
def test_a_chance_is_never_none_or_all(probability: float, told: str) -> None:
    assert chance(probability) == told


def test_a_word_goes_with_the_number_before_it() -> None:
    assert [agree(n, "was", "were") for n in (0, 1, 2)] == ["were", "was", "were"]
    assert plural("patient") == "patients"


@pytest.mark.parametrize(
    ("names", "told"),
    [
        ([], ""),
        (["C1"], "C1"),
        (["C1", "C2"], "C1 and C2"),
        ((0, 2, 4), "0, 2 and 4"),
    ],
)
def test_names_are_joined_as_one_says_them(names: list[object], told: str) -> None:
    assert join(names) == told


def test_numbers_keep_their_digits_and_have_a_minus_sign() -> None:
    assert number(0.5) == "0.500"
    assert number(-0.25, ".2f") == "\N{MINUS SIGN}0.25"
    assert number(0.25, "+.1f") == "+0.2"
    assert number(NAN) == "not defined"
    assert number(NAN, unknown="unknown") == "unknown"


def test_shares_are_percent_with_a_space() -> None:
    assert percent(0.476, 1) == "47.6 %"
    assert percent(1) == "100 %"
    assert span(0.454, 0.498, ".1%") == "45.4 to 49.8 %"


@pytest.mark.parametrize(
    ("low", "high", "told"),
    [(0.7, 0.9, "0.80 (95 % interval 0.70 to 0.90)"), (NAN, NAN, "0.80 (alone)")],
)
def test_an_interval_stands_behind_its_number(
    low: float, high: float, told: str
) -> None:
    measured = SimpleNamespace(estimate=0.8, low=low, high=high)
    assert interval(measured, ".2f", without="alone") == told


def test_what_is_not_defined_has_no_interval() -> None:
    nothing = SimpleNamespace(estimate=NAN, low=NAN, high=NAN)
    assert interval(nothing) == "not defined"


def test_p_values_are_never_zero() -> None:
    assert p_value(0.0123) == "p = 0.012"
    assert p_value(1e-9) == "p below 0.0001"


def test_a_block_is_one_line_of_plain_text() -> None:
    say = Prose("csfd_core.reports", "leakage")
    result = SimpleNamespace(test_slices=0)
    assert say("why_undefined", result=result) == "as there are no test slices"
    names = Prose("csfd_core.reports", "comparison")
    assert names("weights", weights="<b>", models=["a", "b"]).endswith("“<b>”.")


def test_a_fact_that_is_not_given_is_an_error_and_no_gap_in_the_text() -> None:
    say = Prose("csfd_core.reports", "eda")
    with pytest.raises(jinja2.UndefinedError, match="'overall' is undefined"):
        say("fracture_share")
    with pytest.raises(KeyError, match="nothing_of_this_name"):
        say("nothing_of_this_name")


@pytest.mark.parametrize("package", [registry, reports])
def test_every_block_that_another_one_says_is_there(package: object) -> None:
    folder = Path(next(iter(package.__path__))) / "templates"  # type: ignore[attr-defined]
    templates = sorted(folder.glob("*.jinja"))
    assert templates
    environment = jinja2.Environment()
    for path in templates:
        tree = environment.parse(path.read_text())
        blocks = {block.name for block in tree.find_all(jinja2.nodes.Block)}
        for call in tree.find_all(jinja2.nodes.Call):
            if isinstance(call.node, jinja2.nodes.Name) and call.node.name == "say":
                assert call.args[0].as_const() in blocks, path.name
