"""What loading the definitions and asking for help must not import."""

import importlib
import subprocess
import sys

import pytest
from support.paths import ROOT

from benchmarks.__main__ import LONG, NAMES

HEAVY = {"tensorflow", "keras", "mlflow", "matplotlib"}

PROBE = f"""
import sys
{{statement}}
heavy = {sorted(HEAVY)!r}
loaded = sorted(name for name in heavy if name in sys.modules)
sys.exit(f"imported: {{{{loaded}}}}" if loaded else 0)
"""


def run_probe(statement: str) -> subprocess.CompletedProcess[str]:
    code = PROBE.format(statement=statement)
    call = [sys.executable, "-W", "ignore", "-c", code]
    return subprocess.run(call, capture_output=True, text=True, check=False)


@pytest.mark.slow
@pytest.mark.parametrize(
    "statement",
    [
        "import csfd_dagster.definitions",
        "import csfd_dagster.commands",
        "import csfd_dagster.storage",
        "import csfd_core.cli.main\n"
        "from typer.testing import CliRunner\n"
        "assert CliRunner().invoke(csfd_core.cli.main.app, ['--help']).exit_code == 0",
    ],
    ids=["definitions", "commands", "storage", "help"],
)
def test_nothing_heavy_is_imported(statement: str) -> None:
    result = run_probe(statement)
    assert result.returncode == 0, result.stderr


def test_probe_finds_a_planted_import() -> None:
    result = run_probe("import matplotlib")
    assert "imported: ['matplotlib']" in result.stderr


def test_help_does_not_import_dagster_or_pandas() -> None:
    code = (
        "import sys, csfd_core.cli.main\n"
        "assert 'csfd_dagster.commands' in sys.modules\n"
        "sys.exit(bool({'dagster', 'pandas'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_every_benchmark_can_be_imported() -> None:
    names = [path.stem for path in (ROOT / "benchmarks").glob("[a-z]*.py")]
    assert {*NAMES, *LONG} <= {*names}
    for name in names:
        importlib.import_module(f"benchmarks.{name}")
