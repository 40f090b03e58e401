# Every routine is one word. `make demo` and `make test` do all set-up by themselves.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/uv pip install --quiet --python $(BIN)/python
STUDIES ?= 60
LOCKED ?= 20
CLUSTER_STUDIES ?= 24
SEED ?= 0
# How long each step of the demo took: $(call timed,what,command)
TIMES := data/times.txt
timed = begun=$$(date +%s); $(2) && mkdir -p data && \
	echo "$(1) $$(($$(date +%s) - begun)) s" >> $(TIMES)

# Tests start many processes. None compiles again what another has compiled.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help setup demo simulate cluster-demo test test-fast check lint type bench ui serve mlflow lock clean

help:
	@echo "make demo   set up, make a phantom and run the whole graph on it"
	@echo "make simulate  three months of new studies on phantoms, in minutes"
	@echo "make cluster-demo  the same on a cluster of services on this machine"
	@echo "make test   set up and run the tests"
	@echo "make test-fast  the tests that are not slow"
	@echo "make check  linters, types and import rules"
	@echo "make ui     Dagster's web UI on this project"
	@echo "make serve  the reports in the store, in a browser (csfd ui does it too)"
	@echo "make mlflow MLflow's UI on what the runs have recorded"
	@echo "make bench  benchmarks, printed with the machine"
	@echo "make lock   resolve requirements.lock anew from pyproject.toml"
	@echo "make clean  remove the demo's data and Dagster's state"

setup: $(VENV)/ready

$(VENV)/ready: requirements.lock pyproject.toml
	mkdir -p $(VENV) && date +%s > $(VENV)/begun
	$(PYTHON) -m venv $(VENV)
	awk '/^[^ ]/ { is_uv = /^uv==/ } is_uv' requirements.lock > $(VENV)/uv.txt
	$(BIN)/python -m pip install --quiet --require-hashes --requirement $(VENV)/uv.txt
	$(INSTALL) --compile-bytecode --require-hashes --requirement requirements.lock
	$(INSTALL) --no-deps --no-build-isolation --editable .
	echo "set-up, once $$(($$(date +%s) - $$(cat $(VENV)/begun))) s" > $@

demo: setup
	@rm -f $(TIMES)
	$(call timed,phantom,$(BIN)/csfd phantom data/source \
		--studies $(STUDIES) --seed $(SEED) --locked $(LOCKED))
	$(call timed,csfd run,$(BIN)/csfd run \
		--source data/source --store data/store --profile demo)
	@cat $(VENV)/ready $(TIMES)

simulate: setup
	rm -rf data/simulation
	$(BIN)/csfd simulate data/simulation

cluster-demo: setup
	$(BIN)/python -m deploy.demo --studies $(CLUSTER_STUDIES) --seed $(SEED)

test: setup
	$(BIN)/pytest

test-fast: setup
	$(BIN)/pytest -m "not slow"

check: lint type

lint: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports

type: setup
	$(BIN)/mypy

bench: setup
	$(BIN)/python -m benchmarks

ui: setup
	$(BIN)/csfd ui

serve: setup
	$(BIN)/python -m csfd_core.web

mlflow: setup
	$(BIN)/mlflow ui --host 127.0.0.1 --port 5000 --backend-store-uri sqlite:///data/mlflow.db

lock:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip compile pyproject.toml --extra dev --extra cluster --python-version 3.11 \
		--generate-hashes --no-header --no-annotate --no-strip-extras --quiet \
		--output-file requirements.lock

clean:
	rm -rf data history schedules storage logs .nux .telemetry .logs_queue
