"""Imported once by the process that runs are forked from: all that a run imports."""

import importlib
import os
from contextlib import suppress
from typing import Final

import dagster._grpc.impl  # noqa: F401 - what a run begins with

_DEFINITIONS: Final = "CSFD_DEFINITIONS"  # set by ``csfd_dagster.code_server``

# A fault of the definitions ends nothing here: the code server shows it.
with suppress(Exception):
    importlib.import_module(os.environ.get(_DEFINITIONS, ""))
