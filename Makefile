VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
STUDY ?= simulations/heat/study.yaml
# Least share of lines that the unit tests cover, in percent.
COVERAGE := 80
# Tests that run without the measurement of coverage: it sees nothing of other processes, and it doubles the time of
# property tests, whose many examples cover the same lines. They run in the order of the folders: the short property
# tests come last, so that no core is idle while the last long file runs.
UNCOVERED := mpi or slow or hypothesis

.PHONY: help setup run test test-long lint docs

help: ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /: /'

setup: $(STAMP) ## create .venv and install the project with its pinned dependencies

$(STAMP): pyproject.toml constraints.txt
	@echo "setup: installing melissa_gen into $(VENV)"
	@test -x $(BIN)/python || python3 -m venv $(VENV)
	@$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[mpi,test]'
	@touch $(STAMP)

run: setup ## train a surrogate of the heat equation online (STUDY=other.yaml for another study)
	@echo "run: $(STUDY)"
	@$(BIN)/melissa-gen run $(STUDY)

test: setup ## lint, type-check, and run every test but the long ones
	@echo "test: ruff, mypy, then pytest"
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy
	@$(BIN)/python -m pytest -n 2 --durations=10 --cov --cov-report= --cov-fail-under=$(COVERAGE) -m "not ($(UNCOVERED) or long or slurm or oar)"
	@$(BIN)/python -m pytest -n 2 --durations=10 --dist loadfile --no-loadscope-reorder -m "($(UNCOVERED)) and not (long or slurm or oar)"

# The files of `test-long` start in the order of the folders: the longest, of faults and storms, come first.
test-long: setup ## tests of resumed runs, of solvers in other languages or not ours, and of a SLURM cluster and of an OAR
	@echo "test-long: pytest"
	@$(BIN)/python -m pytest -n 2 --durations=10 --dist loadfile --no-loadscope-reorder -m "long and not (slurm or oar)"
	@$(BIN)/python -m pytest --durations=10 -m slurm
	@$(BIN)/python -m pytest --durations=10 -m oar

lint: setup ## format and lint the code in place
	@$(BIN)/ruff check --fix . && $(BIN)/ruff format . && $(BIN)/mypy

$(VENV)/.docs: $(STAMP)
	@echo "docs: installing the tools that build the site into $(VENV)"
	@$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[mpi,docs]'
	@touch $@

docs: $(VENV)/.docs ## build the documentation into build/site; a warning is an error
	@echo "docs: run the notebook, then mkdocs"
	@$(BIN)/python docs/build.py
