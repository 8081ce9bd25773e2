# Every target makes .venv first, so `make demo` works on a machine with only Python 3.11+ and make.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready

.PHONY: concurrency corruption coverage faults fuzz machines mutants power soak fuzz-guided gpu demo test lint types crash slow bench docs clean

demo: $(READY)
	$(BIN)/gnnsys demo

# A process per core, four at most, each with one torch thread; make test PARALLEL= runs in one.
PARALLEL ?= -n auto --maxprocesses 4 --dist loadfile
test: export OMP_NUM_THREADS ?= 1
test: $(READY)
	$(BIN)/pytest $(PARALLEL) -m "not crash and not slow and not gpu"

# make crash KILLS=100: so many per verb at any place, and one chain through all verbs for every 20
KILLS ?= 20
crash: $(READY)
	KILLS=$(KILLS) $(BIN)/pytest -m crash
	KILLS=$(KILLS) $(BIN)/pytest tests/crash/test_kill_places.py

# make concurrency RACES=500 SECONDS=300
RACES ?= 10
SECONDS ?= 3
concurrency: $(READY)
	RACES=$(RACES) SECONDS=$(SECONDS) $(BIN)/pytest tests/crash/test_concurrency.py

# make power STATES=5000: of a simulated disk, per protocol
STATES ?= 250
power: $(READY)
	STATES=$(STATES) $(BIN)/pytest tests/crash/test_power_loss.py

# make soak MINUTES=30: training that is killed every 20 to 60 seconds beside training that is not
MINUTES ?= 30
soak: $(READY)
	MINUTES=$(MINUTES) $(BIN)/pytest tests/crash/test_soak.py

# make machines EXAMPLES=1000: state machines of loader and cache
EXAMPLES ?= 30
machines: $(READY)
	EXAMPLES=$(EXAMPLES) $(BIN)/pytest tests/loading/test_machine.py tests/storage/test_cache_machine.py

# make corruption FLIPS=2000
FLIPS ?= 60
corruption: $(READY)
	GNNSYS_FLIPS=$(FLIPS) $(BIN)/pytest tests/corruption

# make faults FAULTS=300: places at which each verb is made to fail
FAULTS ?= 40
faults: $(READY)
	FAULTS=$(FAULTS) $(BIN)/pytest tests/crash/test_faults.py

# make fuzz RUNS=100000
RUNS ?= 3000
fuzz: $(READY)
	RUNS=$(RUNS) $(BIN)/pytest tests/fuzz

# make fuzz-guided TARGET=npz RUNS=100000: one target of tests/fuzz/targets.py, led by the lines that inputs reach
TARGET ?= npz
fuzz-guided: $(READY)
	$(BIN)/pip install -q -c constraints.txt atheris
	$(BIN)/python -m tests.fuzz.guided $(TARGET) -runs=$(RUNS)

# How many changes to the core of storage its own tests notice; hours on 2 cores. mutmut wants folders, no links.
mutants: export OMP_NUM_THREADS ?= 1
mutants: $(READY)
	$(BIN)/pip install -q -c constraints.txt mutmut
	rm -rf build/mutants && mkdir -p build/mutants
	cp -rL gnnsys tests pyproject.toml build/mutants
	cd build/mutants && ../../$(BIN)/mutmut run && ../../$(BIN)/mutmut export-cicd-stats
	$(BIN)/python -m tests.mutants build/mutants/mutants/mutmut-cicd-stats.json

gpu: $(READY)
	$(BIN)/pytest -m gpu

# What tests reach of storage, checkpoints and importers; functions that numba compiles are not looked into.
coverage: export OMP_NUM_THREADS ?= 1
coverage: $(READY)
	$(BIN)/pip install -q -c constraints.txt pytest-cov
	$(BIN)/pytest --cov --cov-report=json:build/coverage.json -m "not crash and not slow and not gpu" \
		tests/storage tests/ingestion tests/training tests/loading tests/planning tests/samplers tests/corruption \
		tests/fuzz tests/seams tests/interop tests/cli/test_bad_input.py tests/test_progress.py
	$(BIN)/python -m tests.reached build/coverage.json

slow: $(READY)
	$(BIN)/pytest -m slow

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY)
	$(BIN)/mypy -p gnnsys

# DGL's own requirements would bring packages that its core does not use; these are what it imports.
bench: $(READY)
	$(BIN)/pip install -q -c constraints.txt networkx pandas psutil requests scipy tqdm
	$(BIN)/pip install -q --no-deps dgl==2.1.0
	$(BIN)/gnnsys bench all --out bench/results
	$(MAKE) docs

docs: $(READY)
	$(BIN)/pip install -q -c constraints.txt matplotlib
	$(BIN)/python -m gnnsys.bench.tables

clean:
	rm -rf .venv build *.egg-info

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install -q -c constraints.txt --config-settings editable_mode=compat -e ".[dev]"
	touch $@
