"""The documentation names what the code has."""

import re
import tomllib

import dagster as dg
import pytest
from support.paths import ROOT

from csfd_core.dicom.findings import CATALOGUE
from csfd_core.store.metadata import STUDIES_COLUMNS
from csfd_dagster.definitions import defs

README = (ROOT / "README.md").read_text()
OPERATIONS = (ROOT / "docs" / "operations.md").read_text()
ARCHITECTURE = (ROOT / "docs" / "architecture.md").read_text()
ROOMS = re.compile(r"^\| `([\w.]+)` \|", re.MULTILINE)
MODULES = re.compile(r"`((?:csfd_core|csfd_dagster|tests)/[\w/.]*)`")


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


def test_every_link_of_the_documentation_leads_somewhere() -> None:
    pages = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    for page in pages:
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
            if not target.startswith("http"):
                assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_readme_fits_on_a_page() -> None:
    assert len(README.splitlines()) <= 120


def test_everything_that_dagster_shows_is_documented() -> None:
    repository = defs.get_repository_def()
    names = [
        *(key.to_user_string() for key in repository.asset_graph.get_all_asset_keys()),
        *(job.name for job in repository.get_all_jobs() if job.name[:2] != "__"),
        *(sensor.name for sensor in repository.sensor_defs),
        *(schedule.name for schedule in repository.schedule_defs),
    ]
    assert len(names) > 30
    for name in names:
        assert f"`{name}`" in OPERATIONS, name


def test_map_has_the_rooms_that_the_linter_holds_in_their_order() -> None:
    config = tomllib.loads((ROOT / "pyproject.toml").read_text())
    contracts = config["tool"]["importlinter"]["contracts"]
    (layers,) = [one["layers"] for one in contracts if one["type"] == "layers"]
    assert ROOMS.findall(ARCHITECTURE) == layers


@pytest.mark.parametrize("name", ["architecture.md", "operations.md", "quarantine.md"])
def test_every_module_that_a_page_names_is_there(name: str) -> None:
    named = MODULES.findall((ROOT / "docs" / name).read_text())
    assert named
    for path in named:
        assert (ROOT / path).exists(), path


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


def test_the_changelog_says_what_this_version_holds() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    headings = re.findall(
        r"^## (.*)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE
    )
    versions = [heading for heading in headings if heading != "Unreleased"]
    assert re.fullmatch(rf"\[{re.escape(project['version'])}\] - [\d-]+", versions[0])
    assert versions[-1].startswith("[0.1.0]")
