"""How csfd writes numbers, names and sentences: each way once.

``Prose`` renders the blocks of a template as text. A block is the one home of what a
page, the terminal, Dagster and MLflow say alike. What counts and chooses is Python and
hands over typed facts; what says it is the block.
"""

import functools
import hashlib
import math
import re
from collections.abc import Iterable
from importlib.resources import files
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    import jinja2

_PLAIN_NAME: Final = re.compile(
    r"[0-9./\-]{1,80}(dcm|nii|nii\.gz|json|csv|zip|parquet|jpg)?",
    re.ASCII | re.IGNORECASE,
)
_PASSWORD: Final = re.compile(r"(?<=://)([^/@:\s]*:)[^/@\s]*@")
_SMALLEST_P: Final = 1e-4  # that is written out
_LEAST_CHANCE: Final = 0.001  # that is written out
_FINE_CHANCE: Final = 0.0995  # below it, with a digit behind the point
_SINGULARS: Final = (
    ("ay", "ays"),
    ("y", "ies"),
    ("a", "ae"),
    ("x", "xes"),
    ("ss", "sses"),
)


class Measured(Protocol):
    """A number with its 95 % interval; ``low`` and ``high`` NaN where it has none."""

    @property
    def estimate(self) -> float:
        """The number itself."""

    @property
    def low(self) -> float:
        """The lower end."""

    @property
    def high(self) -> float:
        """The upper end."""


def count(number: int, noun: str, verb: str = "", verbs: str = "") -> str:
    """Return a number with its noun, and the verb that goes with it.

    Args:
        number: How many.
        noun: In the singular.
        verb: In the singular; nothing follows the noun without it.
        verbs: In the plural, where it differs from ``verb``.
    """
    words = [str(number), agree(number, noun, plural(noun))]
    if verb:
        words.append(agree(number, verb, verbs or verb))
    return " ".join(words)


def agree(number: int, one: str, many: str) -> str:
    """Return the word that goes with a number: ``has`` with 1, ``have`` with 2."""
    return one if number == 1 else many


def plural(noun: str) -> str:
    """Return the plural of the nouns that csfd uses."""
    for ending, endings in _SINGULARS:
        if noun.endswith(ending):
            return noun.removesuffix(ending) + endings
    return f"{noun}s"


def join(names: Iterable[object]) -> str:
    """Return names as a list in a sentence: ``C1, C2 and C3``; empty for none."""
    *first, last = [str(name) for name in names] or [""]
    return f"{', '.join(first)} and {last}" if first else last


def safe_name(name: str) -> str:
    """Return a name from outside that may be shown: it can hold the name of a patient.

    Digits stay as they are, as in ``17.dcm`` and UIDs; anything else becomes a digest.
    """
    if _PLAIN_NAME.fullmatch(name):
        return name
    return f"file-{hashlib.sha256(name.encode(errors='replace')).hexdigest()[:8]}"


def safe_url(url: str) -> str:
    """Return a URL without the password that it may hold."""
    return _PASSWORD.sub(r"\1***@", url)


def number(value: float, form: str = ".3f", unknown: str = "not defined") -> str:
    """Return a number as it stands in a sentence, negative ones with a minus sign.

    Args:
        value: Any number.
        form: Format specification; ``%`` sets the sign apart, as in ``47.6 %``.
        unknown: What NaN is called.
    """
    if math.isnan(value):
        return unknown
    return f"{value:{form}}".replace("%", " %").replace("-", "\N{MINUS SIGN}")


def percent(share: float, digits: int = 0) -> str:
    """Return a share of 1 in percent."""
    return number(share, f".{digits}%")


def chance(probability: float) -> str:
    """Return a probability in percent: finer where it is small, never none or all."""
    if 0 <= probability < _LEAST_CHANCE:
        return f"below {percent(_LEAST_CHANCE, 1)}"
    if 1 - _LEAST_CHANCE < probability <= 1:
        return f"above {percent(1 - _LEAST_CHANCE, 1)}"
    is_coarse = _FINE_CHANCE <= probability <= 1 - _FINE_CHANCE
    return percent(probability, 0 if is_coarse else 1)


def share_of(share: float) -> str:
    """Return a share to stand before "of", never rounded to all or nothing."""
    if math.isnan(share) or share == 0:
        return "none"
    if share == 1:
        return "all"
    if share < 0.005:
        return "less than 1 %"
    return "more than 99 %" if share >= 0.995 else percent(share)


def span(low: float, high: float, form: str = ".3f") -> str:
    """Return a range, its unit once: ``45.4 to 49.8 %``."""
    return f"{number(low, form).removesuffix(' %')} to {number(high, form)}"


def interval(
    measured: Measured,
    form: str = ".3f",
    label: str = "95 % interval ",
    without: str = "no interval",
) -> str:
    """Return a number with its interval: ``0.81 (95 % interval 0.7 to 0.9)``.

    Args:
        measured: The number.
        form: As of ``number``.
        label: What the interval is called.
        without: What stands in its place where there is none.
    """
    value = number(measured.estimate, form)
    if math.isnan(measured.estimate):
        return value
    if math.isnan(measured.low):
        return f"{value} ({without})" if without else value
    return f"{value} ({label}{span(measured.low, measured.high, form)})"


def p_value(p: float) -> str:
    """Return a p-value with its sign: ``p = 0.012`` or ``p below 0.0001``."""
    return f"p below {_SMALLEST_P:.4f}" if p < _SMALLEST_P else f"p = {p:.2g}"


def capital(text: str) -> str:
    """Return a sentence with its first letter large."""
    return text[:1].upper() + text[1:]


def uncapital(text: str) -> str:
    """Return a title as it stands inside a sentence."""
    return text[:1].lower() + text[1:]


class Prose:
    """The sentences of one template, rendered as plain text, a block at a time."""

    def __init__(self, package: str, name: str, **constants: object) -> None:
        """Name the template; it is read when something is said.

        Args:
            package: The package whose folder ``templates`` holds it.
            name: Of the file, without its ending.
            constants: What every block knows.
        """
        self._package = package
        self._name = name
        self._constants = {**constants, "say": self}

    def __call__(self, block: str, **facts: object) -> str:
        """Return a block with these facts, on one line.

        A block can say another one with facts of its own: ``{{ say("name", x=1) }}``.

        Raises:
            KeyError: If the template has no such block.
            jinja2.UndefinedError: If the block needs a fact that is not given.
        """
        template = _template(self._package, self._name)
        context = template.new_context({**self._constants, **facts})
        text = "".join(template.blocks[block](context))
        return re.sub("[ \n]+", " ", text).strip(" ")


@functools.cache
def _template(package: str, name: str) -> "jinja2.Template":
    import jinja2

    # Text: a page escapes it.
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined)
    environment.tests["nan"] = math.isnan
    words = (count, agree, plural, join, number, percent, share_of, span, interval)
    for function in (*words, chance, p_value, capital, uncapital):
        environment.globals[function.__name__] = function
    path = files(package) / "templates" / f"{name}.jinja"
    return environment.from_string(path.read_text("utf-8"))
