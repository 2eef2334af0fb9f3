# The two commands of the README are `make course` and `make test`; both create .venv first if it is missing or out of date.
# POSIX make and sh. On Windows, or without make, README.md spells the same commands out.

PYTHON = python3
# Arguments for the install of torch, for example: make course TORCH="--index-url https://download.pytorch.org/whl/cpu"
TORCH =
PROFILE = smoke
JOBS = 2
# Which tests: `make release` also runs the slow ones.
TESTS = not slow

BIN = .venv/bin
CODE = timescope_lite tests notebooks
SUPPORTED = import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))

.POSIX:
.PHONY: help install course test lint data notebooks report release clean

help:
	@echo "make course     install if needed, run every notebook ($(PROFILE) profile), print one table and the path of the report"
	@echo "make test       install if needed, then lint, types, all tests, the notebooks"
	@echo "make data       build what is missing of the videos and questions, and check the rest"
	@echo "make notebooks  run the notebooks whose code, library, parameters or installed versions changed since the last run"
	@echo "make report     make notebooks, then the page of results and the generated lines of README and notebooks"
	@echo "make release    make test with the slow tests, nbval's own reading of the notebooks, then the wheel"
	@echo "make clean      remove what the commands above made, except .venv and data"

# The tools in .venv know their folder by its full name: in a moved or copied checkout they would run the old one.
install: .venv/installed
	@test "$$(cat .venv/installed)" = "$$(pwd -P)" || { \
	  echo ".venv was made in $$(cat .venv/installed): remove it (rm -rf .venv) and run make again" >&2; exit 1; }

# The one recipe for installing. torch comes first, so that nothing that follows chooses another build of it.
.venv/installed: pyproject.toml constraints.txt
	@for python in $(PYTHON) python3.13 python3.12 python3.11; do \
	  $$python -c '$(SUPPORTED)' 2>/dev/null && break; python=; done; \
	if [ -z "$$python" ]; then \
	  echo "Python 3.11, 3.12 or 3.13 is needed and none was found: install one, or say where: make PYTHON=/path/to/python3.12" >&2; exit 1; fi; \
	if ! { $(BIN)/python -c '$(SUPPORTED)' && $(BIN)/python -m pip --version; } >/dev/null 2>&1; then \
	  echo "creating .venv with $$($$python --version) ($$python)"; $$python -m venv --clear .venv; fi
	$(BIN)/python -m pip install -c constraints.txt $(TORCH) torch
	$(BIN)/python -m pip install -c constraints.txt -e ".[dev]"
	@pwd -P > $@

course: install
	$(BIN)/timescope-lite run notebooks/*.ipynb --profile $(PROFILE) --jobs $(JOBS)

lint: install
	$(BIN)/ruff check $(CODE)
	$(BIN)/ruff format --check $(CODE)
	$(BIN)/mypy
	$(BIN)/lint-imports

# tests/test_notebooks.py executes each notebook once and compares the cells marked strict; loadscope keeps a test file on one worker.
test: lint
	$(BIN)/python -m pytest -m "$(TESTS)" -n $(JOBS) --dist loadscope

data: install
	$(BIN)/timescope-lite data check

notebooks: install
	$(BIN)/timescope-lite run notebooks/*.ipynb --profile $(PROFILE) --jobs $(JOBS) --resume

report: notebooks
	$(BIN)/timescope-lite report --record

release:
	$(MAKE) test TESTS="slow or not slow"
	$(BIN)/python -m pytest --nbval-lax --nbval-current-env --nbval-cell-timeout=120 notebooks
	$(BIN)/python -m build

clean:
	rm -rf build dist runs .pytest_cache .mypy_cache .ruff_cache *.egg-info
	find timescope_lite tests notebooks -name __pycache__ -exec rm -rf {} +
