PYTHON ?= python3
BIN = .venv/bin

# The command that makes a virtual environment. It refuses an older Python in one line, for which pip
# takes many.
VERSION = $(shell $(PYTHON) --version 2>&1)
VENV = $(if $(shell echo '$(VERSION)' | grep -E '^Python (3\.(1[1-9]|[2-9][0-9])|[4-9])'),$(PYTHON) -m venv,\
$(error onerow needs Python 3.11 or later, and PYTHON=$(PYTHON) says: $(or $(VERSION),nothing). Name another, \
as in: make $(or $(MAKECMDGOALS),run) PYTHON=python3.13))

# Changes of files under RESOURCES are served without a restart.
RELOAD ?= 1

run: .venv/installed
	@RELOAD=$(RELOAD) exec $(BIN)/python app.py

# Three files of tests run at a time, because one often waits while two have a core each. Nothing runs
# in parallel on a server that TEST_DATABASE_URL names: each process drops the tests' roles at its end.
test: JOBS ?= $(if $(TEST_DATABASE_URL),0,3)
test: .venv/tested
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile -m 'not long and not alone'

# The tests that take long, and then, alone, those that judge what a busy machine changes, but for the
# faults. The former wait most of their time, and start in the order in which tests/conftest.py puts
# them.
proof: JOBS ?= $(if $(TEST_DATABASE_URL),0,4)
proof: .venv/tested
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder -m long
	$(BIN)/python -m pytest -m alone --ignore tests/faults

psql: .venv/installed
	@$(BIN)/python -m db psql

stress: .venv/tested
	$(BIN)/python -m tests.proof.stress

exhaustive: .venv/tested
	$(BIN)/python -m tests.proof.three

# With QUICK=1 each fault happens once, for a moment, in tests that judge no seconds, and the tests of
# failover, deploys and overload run.
faults: .venv/tested
	$(BIN)/python -m $(if $(QUICK),pytest -m alone tests/faults,tests.faults)

# It makes network namespaces, which only root may do.
cluster: .venv/tested
	$(BIN)/python -m tests.faults.cluster

# QUICK=1 measures only the main figures, in under three minutes.
bench: .venv/tested tests/bench/.venv/installed
	$(BIN)/python -m tests.bench $(if $(QUICK),--quick,--svg)

# FUZZ_SECONDS is how long each of the two rounds takes, 35 if it is unset.
fuzz: .venv/tested tests/fuzz/.venv/installed
	$(BIN)/python -m tests.fuzz

lint: .venv/tested
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy .

.venv/installed: requirements.txt
	$(VENV) .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements.txt
	@touch $@

# What the tests need in addition is installed in the same virtual environment.
.venv/tested: tests/requirements.txt .venv/installed
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r $<
	@touch $@

# The peers of the benchmark have a virtual environment of their own, because the service needs none
# of their packages.
tests/bench/.venv/installed: tests/bench/requirements.txt
	$(VENV) tests/bench/.venv
	tests/bench/.venv/bin/pip install --quiet --disable-pip-version-check --require-hashes -r $<
	@touch $@

# So has the tool that checks /openapi.json against the service.
tests/fuzz/.venv/installed: tests/fuzz/requirements.txt
	$(VENV) tests/fuzz/.venv
	tests/fuzz/.venv/bin/pip install --quiet --disable-pip-version-check --require-hashes -r $<
	@touch $@

# Writes each requirements.txt from the short lists in pyproject.toml, with the hashes of all files of
# a release, for every Python and system. Versions stay as they are, and UPGRADE=1 takes the newest.
lock:
	@tools=$$(mktemp -d) && trap 'rm -r "$$tools"' EXIT && $(VENV) "$$tools" && \
	"$$tools"/bin/pip install --quiet --disable-pip-version-check --require-hashes -r tests/tools/requirements.txt && \
	lock="$$tools/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes" && \
	export UV_CUSTOM_COMPILE_COMMAND='make lock' && \
	$$lock $(if $(UPGRADE),--upgrade) pyproject.toml --output-file requirements.txt && \
	$$lock $(if $(UPGRADE),--upgrade) --group dev pyproject.toml --output-file tests/requirements.txt && \
	for group in bench fuzz tools; do \
	$$lock $(if $(UPGRADE),--upgrade) --group $$group --output-file tests/$$group/requirements.txt || exit; \
	done

# Looks for known vulnerabilities in all of them with pip-audit. It fails if there are any, and not if
# pip-audit cannot be installed.
audit:
	@tools=$$(mktemp -d) && trap 'rm -r "$$tools"' EXIT && $(VENV) "$$tools" && \
	if "$$tools"/bin/pip install --quiet --disable-pip-version-check --require-hashes -r tests/tools/requirements.txt; then \
	"$$tools"/bin/python tests/tools/audit.py tests/requirements.txt $(foreach group,bench fuzz tools,tests/$(group)/requirements.txt); \
	else echo 'Not audited: pip-audit cannot be installed.'; fi

.PHONY: run test proof psql stress exhaustive faults cluster bench fuzz lint lock audit
