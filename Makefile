# make run: a first dataset from the sample photos.   make test: everything that is checked.
# make chaos: every fault befalls every stage (an hour or more), and what came of it in a table.
# Both make a virtual environment in .venv first, if there is none. make clean removes it and the output.
# make browser: a Chromium from Debian's packages, in which the report is tested; without one those tests are skipped.

PYTHON ?= python3
BIN := .venv/bin
OUT ?= out

.PHONY: run test browser slow chaos bench clean

run: .venv/run-ready
	@echo "== Annotating the sample photos into $(OUT)/ (no download, no GPU; about a minute)"
	$(BIN)/engine run --stage annotate --out $(OUT)
	@echo "== A page about them"
	$(BIN)/engine report $(OUT)

test: .venv/test-ready
	@echo "== Style"
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	@echo "== Types"
	$(BIN)/mypy
	@echo "== Tests (about 20 minutes on two cores)"
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

browser:
	@command -v chromium > /dev/null || { echo "== Installing Chromium (Debian, as root)"; \
		apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium fonts-dejavu-core > /dev/null; }

slow: .venv/test-ready
	$(BIN)/python -m pytest -m slow

chaos: .venv/test-ready
	$(BIN)/python -m pytest tests/chaos -m ""

bench: .venv/test-ready
	$(BIN)/python benchmarks/engine.py
	$(BIN)/python benchmarks/florence2.py
	$(BIN)/python benchmarks/export.py

.venv/run-ready: pyproject.toml | .venv/bin/pip
	@echo "== Installing the engine and its sample photos into .venv (3 to 5 minutes; PyTorch is large)"
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[samples]'
	@touch $@

.venv/test-ready: pyproject.toml | .venv/bin/pip
	@echo "== Installing the engine and what its tests need into .venv (3 to 5 minutes; PyTorch is large)"
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@ .venv/run-ready

.venv/bin/pip:
	@$(PYTHON) -c 'import sys; v = sys.version_info; \
		sys.exit(v < (3, 11) and f"Python 3.11 or newer is needed; $(PYTHON) is {v[0]}.{v[1]}: make ... PYTHON=python3.11")'
	@echo "== Making a virtual environment in .venv"
	$(PYTHON) -m venv .venv

clean:
	rm -rf .venv $(OUT)
