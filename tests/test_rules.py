"""Each rule has one home: what these tests find elsewhere is a second one."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import csfd_core
import csfd_dagster
from csfd_core.data_kind import DataKind
from csfd_core.dicom.findings import Status
from csfd_core.errors import IdentifierError
from csfd_core.ingest.outcomes import Outcome
from csfd_core.store import paths

ROOTS = [Path(package.__path__[0]) for package in (csfd_core, csfd_dagster)]
SOURCES = {
    f"{root.name}/{path.relative_to(root)}": path.read_text()
    for root in ROOTS
    for path in sorted(root.rglob("*.py"))
}
# Words that mean something else, too: a folder, a role in a lineage, and a training
# that had nothing to do.
_ELSEWHERE = {"withdrawn", "predicted", "unchanged"}
LOCATIONS = {
    value
    for name, value in vars(paths).items()
    if name.isupper() and isinstance(value, str)
}


def compared_texts(source: str) -> Iterator[tuple[int, str]]:
    """Yield every text that something is compared with, or looked up in."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Compare):
            sides = [node.left, *node.comparators]
            if isinstance(node.ops[0], ast.In | ast.NotIn):
                sides += [e for s in sides for e in getattr(s, "elts", [])]
            for side in sides:
                if isinstance(side, ast.Constant) and isinstance(side.value, str):
                    yield node.lineno, side.value


def constants(source: str) -> Iterator[tuple[int, str]]:
    """Yield every text but docstrings; of a formatted one its fixed beginning."""
    tree = ast.parse(source)
    told = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        is_text = isinstance(node, ast.Constant) and isinstance(node.value, str)
        if is_text and id(node) not in told:
            yield node.lineno, node.value


def found(pick: Iterator[tuple[int, str]], wanted: set[str]) -> list[str]:
    return [f"line {line}: {text!r}" for line, text in pick if text in wanted]


def elsewhere(home: str) -> dict[str, str]:
    return {name: text for name, text in SOURCES.items() if name != home}


def compared_elsewhere(home: str, words: set[str]) -> dict[str, list[str]]:
    places = {
        name: found(compared_texts(text), words)
        for name, text in elsewhere(home).items()
    }
    return {name: lines for name, lines in places.items() if lines}


def test_a_studys_status_is_compared_in_one_place() -> None:
    assert compared_elsewhere("csfd_core/dicom/findings.py", set(Status)) == {}
    uses = [
        name
        for name, text in elsewhere("csfd_core/store/standing.py").items()
        if re.search(r'\["status"\]\s*[!=]=', text)
    ]
    assert uses == []


def test_outcomes_and_kinds_of_data_are_compared_as_enums() -> None:
    assert compared_elsewhere("csfd_core/ingest/outcomes.py", set(Outcome)) == {}
    assert compared_elsewhere("csfd_core/data_kind.py", set(DataKind)) == {}


@pytest.mark.parametrize("names", [Outcome, DataKind, Status])
def test_no_module_declares_such_a_word_again(names: type[Outcome]) -> None:
    words = [word for word in names if word not in _ELSEWHERE]
    pattern = "|".join(map(re.escape, words))
    again = re.compile(rf'^[A-Z_]+(: Final)? = "({pattern})"', re.MULTILINE)
    places = {name: again.findall(text) for name, text in SOURCES.items()}
    assert {name: lines for name, lines in places.items() if lines} == {}


def test_folders_of_the_store_are_named_in_one_place() -> None:
    whole = {path for path in LOCATIONS if "/" in path or "_" in path}
    begins = tuple(f"{path}/" for path in LOCATIONS)
    places = {
        name: [
            f"line {line}: {text!r}"
            for line, text in constants(source)
            if text in whole or text.startswith(begins)
        ]
        for name, source in elsewhere("csfd_core/store/paths.py").items()
    }
    assert {name: lines for name, lines in places.items() if lines} == {}


def test_the_store_has_the_documented_layout() -> None:
    fixed = (paths.STUDIES, paths.PREDICTED_MASKS, paths.CROPS, paths.EDA_REPORT)
    assert fixed == (
        "metadata/studies.parquet", "predicted_masks", "crops", "reports/eda",
    )  # fmt: skip
    assert paths.of_study(paths.HEADERS, "1.2") == "metadata/slices/1.2.parquet"
    assert paths.of_study(paths.SLICES, "1.2") == "slices/1.2.parquet"
    assert paths.of_study(paths.MASKS, "1.2") == "masks/1.2.parquet"
    assert paths.of_study(paths.PREDICTIONS, "1.2", ".json") == "predictions/1.2.json"


def test_a_name_that_is_no_identifier_never_becomes_a_path() -> None:
    with pytest.raises(IdentifierError, match=r"Not a valid DICOM UID: '\.\./x'"):
        paths.of_study(paths.SLICES, "../x")


def test_what_is_run_as_a_module_starts_when_all_of_it_is_defined() -> None:
    """A name that is defined below the call of ``main`` is missing in ``python -m``."""
    early = []
    for name, source in SOURCES.items():
        body = ast.parse(source).body
        for node in body[:-1]:
            if isinstance(node, ast.If) and "__name__" in ast.unparse(node.test):
                early.append(f"{name}, line {node.lineno}")
    assert early == []
