# Needs Python 3.11-3.13 and GNU make; everything else goes into .venv.
PYTHON ?= python3
IMAGES ?=
DEMO_OUTPUT ?= demo
BIN := .venv/bin

.PHONY: demo test screenshots soak fuzz lint docs dist format venv clean

demo: venv  ## propose, pretrain, export, fine-tune and report, on the shipped photographs (or IMAGES=folder)
	$(BIN)/socodet demo $(if $(IMAGES),"$(IMAGES)") --output "$(DEMO_OUTPUT)" --overwrite

test: venv  ## the whole test suite
	$(BIN)/pytest

screenshots: venv  ## pages in a headless Chromium, at the widths of a phone and of a screen, light and dark, into screenshots/
	SOCODET_SCREENSHOTS=screenshots $(BIN)/pytest -n 0 tests/reports tests/studies/test_comparison_table.py -k browser

soak: venv  ## twenty faults of each kind per command, about an hour; results in soak.jsonl
	SOCODET_FAULTS=20 SOCODET_FAULTS_RECORD=soak.jsonl $(BIN)/pytest -n 0 tests/faults

fuzz: venv  ## 100,000 damaged files per reader, about an hour; results in fuzz.jsonl
	SOCODET_FUZZ=100000 SOCODET_FUZZ_RECORD=fuzz.jsonl $(BIN)/pytest -n 0 tests/fuzz

lint: venv  ## formatting, lint, types, spelling, imports between packages, Dockerfile
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/codespell
	$(BIN)/lint-imports
	! test -x $(BIN)/hadolint || $(BIN)/hadolint Dockerfile

docs: venv  ## the documentation as a site, in site/index.html; strict
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[docs]"
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet

dist: venv  ## wheel and sdist in dist/, checked; the wheel is also tried in its own environment (DEMO=1: including the demo)
	rm -rf dist
	$(BIN)/python -m build --outdir dist .
	$(BIN)/python .ci/check_dist.py dist

format: venv
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

venv: .venv/.stamp  ## does nothing if it is up to date

.venv/.stamp: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(None if (3, 11) <= sys.version_info < (3, 14) else "Python 3.11 to 3.13 is needed: make PYTHON=python3.12 ...")'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	touch $@

clean:
	rm -rf .venv demo dist site screenshots .hypothesis .pytest_cache .mypy_cache .ruff_cache
