"""An installed wheel works in an empty folder: nothing needs a clone."""

import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from importlib.resources import files
from pathlib import Path

import pytest

from csfd_core.runtime import versions
from csfd_dagster.instance.files import lay_instance, workspace_file

ROOT = Path(__file__).resolve().parents[1]
BUILT_FROM = ("pyproject.toml", "setup.py", "README.md", "LICENSE", "NOTICE")
# One step of everything: what is tried is that it runs, not what it learns.
BRIEF = {
    "CSFD_SEGMENTATION_EPOCHS": "1",
    "CSFD_SEGMENTATION_STEPS_PER_EPOCH": "1",
    "CSFD_CLASSIFICATION_EPOCHS": "1",
    "CSFD_CLASSIFICATION_STEPS_PER_EPOCH": "1",
}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel from a copy, so that nothing is left in the source tree."""
    copy = tmp_path_factory.mktemp("copy")
    for name in BUILT_FROM:
        shutil.copy(ROOT / name, copy / name)
    for package in ("csfd_core", "csfd_dagster"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / package, copy / package, ignore=ignored)
    call = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-index"]
    call += ["--no-build-isolation", "--wheel-dir", "dist", "."]
    subprocess.run(call, cwd=copy, check=True)
    (built,) = (copy / "dist").glob("csfd-*.whl")
    return built


@pytest.fixture(scope="module")
def program(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install the wheel into an environment that sees the packages of this one."""
    venv = tmp_path_factory.mktemp("venv")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True)
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    packages = venv / "lib" / version / "site-packages"
    # A line of a path file adds a folder, but does not run the path files in it: the
    # csfd that is tested here is not seen there.
    (packages / "others.pth").write_text(f"{sysconfig.get_path('purelib')}\n")
    call = [sys.executable, "-m", "pip", "--python", str(venv / "bin" / "python")]
    call += ["install", "--quiet", "--no-deps", "--no-index", str(wheel)]
    subprocess.run(call, check=True)
    return venv / "bin" / "csfd"


def clean_environment(**variables: str) -> dict[str, str]:
    """The environment without what would lead back to the clone."""
    ours = ("CSFD_", "DAGSTER_", "MLFLOW_", "PYTHON")
    kept = {k: v for k, v in os.environ.items() if not k.startswith(ours)}
    own = {
        "COLUMNS": "200",
        "XDG_CONFIG_HOME": str(Path(os.environ["CSFD_KEY_FILE"]).parent),
    }
    return {**kept, **own, **variables}


def run(program: Path, folder: Path, *arguments: str, **variables: str) -> str:
    result = subprocess.run(
        [program, *arguments],
        cwd=folder,
        env=clean_environment(**variables),
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, f"{arguments}: {result.stdout}{result.stderr}"
    return result.stdout


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_an_installed_csfd_works_in_an_empty_folder(
    program: Path, tmp_path: Path
) -> None:
    code = "import csfd_core as a, csfd_dagster as b; print(*a.__path__, *b.__path__)"
    found = run(program.with_name("python"), tmp_path, "-c", code).split()
    assert [Path(path).parents[3] for path in found] == [program.parents[1]] * 2

    helped = run(program, tmp_path, "--help")
    for command in ("phantom", "predict", "run", "ui", "simulate"):
        assert f" {command} " in helped
    assert "Usage: csfd predict" in run(program, tmp_path, "predict", "--help")
    assert list(tmp_path.iterdir()) == []

    run(program, tmp_path, "phantom", "data/source", "--studies", "2", "--seed", "3")
    assert "2 studies" in run(program, tmp_path, "inspect", "data/source")
    said = run(program, tmp_path, "convert", "data/source", "other")
    assert "2 studies written" in said
    said = run(program, tmp_path, "run", **BRIEF)
    assert f"Store: {tmp_path}/data/store" in said
    page = (tmp_path / "data" / "store" / "reports" / "eda" / "index.html").read_text()
    assert "<style>" in page
    assert (tmp_path / "data" / "mlflow.db").is_file()
    assert (tmp_path / "dagster.yaml").is_file()
    # By the weights that come with csfd, as two studies are too few for others.
    said = run(program, tmp_path, "segment", "data/source", "--out", "masks")
    assert "2 studies segmented, 0 left out" in said
    assert {path.name for path in tmp_path.iterdir()} <= {
        "data", "other", "masks",
        "dagster.yaml", "history", "schedules", "storage", "logs", ".logs_queue",
    }  # fmt: skip


@pytest.mark.slow
def test_home_takes_the_place_of_the_current_folder(
    program: Path, tmp_path: Path
) -> None:
    home, elsewhere = tmp_path / "home", tmp_path / "elsewhere"
    elsewhere.mkdir()
    result = subprocess.run(
        [program, "run"],
        cwd=elsewhere,
        env=clean_environment(CSFD_HOME=str(home)),
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 1
    assert f"no studies in {home}/data/source and {home}/data/inbox" in result.stderr
    assert list(elsewhere.iterdir()) == []


@pytest.mark.slow
def test_the_wheel_has_what_is_no_code(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    for package in ("csfd_core", "csfd_dagster"):
        for path in (ROOT / package).rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts:
                assert str(path.relative_to(ROOT)) in names
    assert {name.rsplit("/", 1)[-1] for name in names} >= {"LICENSE", "NOTICE"}
    assert {name.split("/")[0].split("-")[0] for name in names} == {
        "csfd_core", "csfd_dagster", "csfd",
    }  # fmt: skip


@pytest.mark.parametrize("name", ["dagster.yaml", "workspace.yaml"])
def test_the_files_of_the_clone_are_those_of_the_package(name: str) -> None:
    own = files("csfd_dagster.instance").joinpath(name)
    assert (ROOT / name).read_text() == own.read_text()


def test_an_instance_is_laid_once_and_then_left_alone(tmp_path: Path) -> None:
    home = tmp_path / "new" / "home"
    lay_instance(home)
    assert (home / "dagster.yaml").read_text() == (ROOT / "dagster.yaml").read_text()
    (home / "dagster.yaml").write_text("mine")
    lay_instance(home)
    assert (home / "dagster.yaml").read_text() == "mine"
    assert workspace_file().read_text() == (ROOT / "workspace.yaml").read_text()


def test_versions_are_those_of_the_lock_file_or_else_of_what_is_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert versions.lock_text() == (ROOT / "requirements.lock").read_text()
    pinned = versions.lock_digest()
    monkeypatch.setattr(versions, "__file__", str(tmp_path / "a" / "b" / "c.py"))
    lines = versions.lock_text().splitlines()
    import numpy

    assert f"numpy=={numpy.__version__}" in lines
    assert lines == sorted(set(lines))
    assert len(versions.lock_digest()) == len(pinned) == 64
    assert versions.lock_digest() == versions.lock_digest() != pinned
