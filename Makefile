# make demo    install into .venv and move a guest while it works
# make test    install what the tests need, real peers among it, and run them all
# make coverage  the same, which lines they reach
# make peers   fetch the real guests and devices that some tests work with (Debian packages, once)
# make lint    format, lint, types, import rules
# make docs    write the tables of the code into the documents
# make strategies  explore every strategy in the lab and write docs/strategies.md (ten minutes on two cores)
# make race-processes  make each loss that the above found happen between real processes
# make mutants  judge every mutant by all checks of its type (ten minutes on two cores; the tests take those near it)
# make conformance  judge the real peers and write docs/conformance.md (half an hour)
# make bench   figures beside each other
# make clean   remove what this file made

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --editable

.NOTPARALLEL:
.PHONY: help demo test coverage peers lint docs strategies race-processes mutants conformance bench clean

help:
	@sed -n 's/^# //p' Makefile

demo: $(VENV)/.has-vdev
	$(BIN)/vdev migrate --ram 1GiB --workload churn

# First what needs no process but the tests' own, a file on each core, the lab's many states and the checks with their
# mutants apart; then what starts some, one after the other.
test: $(VENV)/.has-test
	-@$(PYTHON) tests/peers/set_up.py
	@status=0; \
	$(BIN)/python -m pytest -m "not lab and not check and not process and not peer" -n auto --dist loadfile || status=1; \
	$(BIN)/python -m pytest -m "lab and not process and not peer" -n auto --dist loadfile || status=1; \
	$(BIN)/python -m pytest -m "check and not peer" -n auto --dist load || status=1; \
	$(BIN)/python -m pytest -m "peer or process and not check" || status=1; \
	exit $$status

coverage: $(VENV)/.has-test
	$(BIN)/python -m pytest --cov --cov-report=term

peers:
	$(PYTHON) tests/peers/set_up.py

lint: $(VENV)/.has-lint
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

docs: $(VENV)/.has-vdev
	$(BIN)/python docs/tables.py

strategies: $(VENV)/.has-vdev
	$(BIN)/vdev race --all --out race-results --markdown docs/strategies.md

# 7 is the status of a loss that the guest at the destination found itself.
race-processes: $(VENV)/.has-vdev
	@missing=0; \
	for file in race-results/*.schedule; do \
	  status=0; $(BIN)/vdev race --replay "$$file" --processes >/dev/null || status=$$?; \
	  echo "$$file: status $$status"; \
	  [ $$status = 7 ] || missing=1; \
	done; exit $$missing

mutants: $(VENV)/.has-test
	CHECK_ALL=1 $(BIN)/python -m pytest -n auto --dist load tests/test_check_mutants.py

conformance: $(VENV)/.has-test
	$(BIN)/python tests/peers/scoreboard.py

bench: $(VENV)/.has-test
	@for file in benchmarks/bench_*.py; do echo "== $$file"; $(BIN)/python $$file || exit 1; done

clean:
	rm -rf $(VENV) dist build race-results check-results .coverage .coverage.* .hypothesis .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
	find . -name __pycache__ -prune -exec rm -rf {} +

# The stamps make a second run quick, and quiet without a network.

$(VENV)/.has-python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "$(PYTHON) is missing or older than 3.11; name a newer one: make PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null \
	  || { echo "Python's venv module is missing; on Debian: apt install python3-venv" >&2; exit 1; }
	$(PYTHON) -m venv --clear $(VENV)
	@touch $@

$(VENV)/.has-vdev: $(VENV)/.has-python pyproject.toml
	$(INSTALL) .
	@touch $@

$(VENV)/.has-test: $(VENV)/.has-python pyproject.toml
	$(INSTALL) '.[test]'
	@touch $@ $(VENV)/.has-vdev

$(VENV)/.has-lint: $(VENV)/.has-python pyproject.toml
	$(INSTALL) '.[test,lint]'
	@touch $@ $(VENV)/.has-test $(VENV)/.has-vdev
