# Every target works alone on a bare machine: it makes the environment if there is none.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
# a process for each core, of one thread each
PARALLEL := --numprocesses auto --maxprocesses 8 --dist worksteal

.PHONY: demo test check exhaustive fuzz bench condensed docs docs-look clean

# three seeds of a real stream that needs no download, and its report
demo: $(INSTALLED)
	$(BIN)/clsim run --scenario split-digits --buffer kcenter --memory 50 --seeds 3
	$(BIN)/clsim report summary --figures runs/figures

# the fast tests; `slow` ones, on real data, too: make test ARGS="-m 'slow and not exhaustive'"
test: $(INSTALLED)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(PARALLEL) $(or $(ARGS),-m "not slow")

check: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(PARALLEL)

# every case of which the slow tests try some, and a thousand runs whose processes are killed: hours
exhaustive: $(INSTALLED)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(PARALLEL) -m exhaustive --timeout 0
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.execution.swarm

# hostile input from a seed, one process of a core for half an hour: make fuzz ARGS="--inputs 1000 --seed 1"
fuzz: $(INSTALLED)
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.fuzz $(or $(ARGS),--inputs 10000)

bench: $(INSTALLED)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[test,bench]"
	$(BIN)/python -m benchmarks.startup
	$(BIN)/python -m benchmarks.replay
	$(BIN)/python -m benchmarks.cores
	$(BIN)/python -m benchmarks.together
	$(BIN)/python -m benchmarks.augmentation
	$(BIN)/python -m benchmarks.semi
	$(BIN)/python -m benchmarks.batch_choice
	$(BIN)/python -m benchmarks.report
	$(BIN)/python -m benchmarks.page
	$(BIN)/python -m benchmarks.study
	$(BIN)/python -m benchmarks.coverage
	$(BIN)/python -m benchmarks.submodular
	$(BIN)/python -m benchmarks.acquisitions
	$(BIN)/python -m benchmarks.acquisitions --n 50000 --classes 100 --budget 1000 --only badge
	$(BIN)/python -m benchmarks.class_gradients
	$(BIN)/python -m benchmarks.condensation

# the rows of reports/results whose condensers changed, in ./condensed: 45 minutes of one core; a stopped call goes on
condensed: $(INSTALLED)
	PATH="$(abspath $(BIN)):$$PATH" sh benchmarks/condensed.sh condensed

# docs/_build/html, where a warning is an error and every internal link is checked; make docs ARGS="-D plot_gallery=0" does
# not run the tutorial
docs: $(VENV)/.docs
	OMP_NUM_THREADS=1 $(BIN)/python -m sphinx -b html -W --keep-going -n -q $(ARGS) docs docs/_build/html
	$(BIN)/python -m docs.links docs/_build/html

# the same, and pages in a browser, wide and narrow, light and dark: docs/_build/screenshots
docs-look: docs
	$(BIN)/python -m docs.look docs/_build/html docs/_build/screenshots

$(VENV)/.docs: $(INSTALLED)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[test,docs]"
	touch $@

# torch first and alone: with it in place, nothing that is installed after it asks for gigabytes of CUDA
$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[test]"
	touch $@

clean:
	rm -rf $(VENV) build *.egg-info docs/_build docs/reference docs/tutorials
