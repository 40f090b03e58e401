"""The documentation names what the code has."""

import re

import dagster as dg
import pytest
from support.paths import ROOT

from csfd_core.dicom.findings import CATALOGUE
from csfd_core.settings import Settings
from csfd_core.store.metadata import STUDIES_COLUMNS
from csfd_dagster.definitions import defs

README = (ROOT / "README.md").read_text()


def test_every_code_is_documented_as_it_is() -> None:
    page = (ROOT / "docs" / "quarantine.md").read_text()
    for code, kind in CATALOGUE.items():
        row = f"| `{code}` | {kind.severity} | {kind.meaning} | {kind.remedy} |"
        assert row in page


def test_every_column_of_the_studies_is_documented() -> None:
    page = (ROOT / "docs" / "data_contracts.md").read_text()
    for name, _, _ in STUDIES_COLUMNS:
        levels_are_a_range = re.fullmatch("C[2-6]", name)
        assert f"`{name}`" in page or levels_are_a_range, name


def test_every_setting_is_documented() -> None:
    names = {"source": "CSFD_SOURCE", "inbox": "CSFD_INBOX", "store": "CSFD_STORE"}
    for field in Settings.__dataclass_fields__:
        assert names.get(field, field.upper()) in README


def test_every_link_of_the_documentation_leads_somewhere() -> None:
    pages = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    for page in pages:
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
            if not target.startswith("http"):
                assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_readme_opens_with_the_two_commands() -> None:
    first = README.split("```")[1]
    assert re.search(r"^make demo\b.*\nmake test\b", first, re.MULTILINE)


@pytest.mark.parametrize(
    "name", ["setup", "demo", "test", "test-fast", "lint", "type", "bench"]
)
def test_makefile_has_the_routine(name: str) -> None:
    makefile = (ROOT / "Makefile").read_text()
    assert re.search(rf"^{name}:", makefile, re.MULTILINE)


def test_resources_describe_their_settings() -> None:
    for resource in (defs.resources or {}).values():
        assert isinstance(resource, dg.ConfigurableResource)
        for name, field in type(resource).model_fields.items():
            assert field.description, name
