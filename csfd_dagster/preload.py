"""Imported once by the process that runs are forked from: all that a run imports."""

import gc
import importlib
from contextlib import suppress

import dagster._grpc.impl  # noqa: F401 - what a run begins with

# A fault of the definitions ends nothing here: the code server shows it.
with suppress(Exception):
    importlib.import_module("csfd_dagster.definitions")

# A run that looked through all of this for garbage would copy 85 MB that it shares.
gc.collect()
gc.freeze()
