# One environment, .venv, made from the lock files; every command below finds it or makes it.
PYTHON ?=
VENV   := .venv
BIN    := $(VENV)/bin
ARGS   ?=
# Tests wait for processes and clocks more than they work: two for each core.
JOBS   ?= $(shell echo $$((2 * $$(getconf _NPROCESSORS_ONLN))))

LOCK   := requirements/dev.txt
STAMP  := $(VENV)/.made-from-lock
UVLOCK := $(BIN)/uv pip compile --universal --python-version 3.11 --generate-hashes \
          --no-emit-index-url --no-emit-find-links --no-header --no-annotate --quiet

.PHONY: help venv demo test crash schedules soak poison scale rungs workers fargate fuzz asked needs check lint fast cover format bench dashboards docs lock clean

help:
	@echo 'make demo [ARGS=--check]   play the worked example: no accounts, no network beyond the package index'
	@echo 'make test [ARGS=...]       every test, in random order'
	@echo 'make crash [SEEDS=0-199]   kill -9 at each of the points with each seed; make test plays each point once'
	@echo 'make soak [SOAK_SECONDS=7200]  300 units, merges, drift, faults and restarts; then nothing may be lost, doubled or left behind'
	@echo 'make schedules             two daemons on one store: 10,000 schedules in simulation, and 200 with real processes'
	@echo 'make poison [UNITS=1000]   poisonous entries among many good ones, with real Terraform; make test plays it with twenty'
	@echo 'make rungs [MODULES=300]   generated modules, planned and applied by each way to run an engine: all come to the same'
	@echo 'make workers [WARM_JOBS=2000]  warm workers and their broker are killed and stopped while jobs ask for them: no result is wrong'
	@echo 'make scale [UNITS=10000 | AWS_UNITS=500]  so many real units through a deploy, a restart, a merge, a look at all, another version of their module'
	@echo 'make fargate [UNITS_ON_FARGATE=300]  each job a task: tasks and a controller are lost, and no work is; make test plays two units'
	@echo 'make fuzz [SECONDS=120]    each parser, coverage-guided, for so much processor time; a crash is saved in tests/hostile/crashes'
	@echo 'make asked [REQUESTS=1000000]  what a runner may be asked, generated: nothing starts that is not on its allow-list'
	@echo 'make check                 lint and the fast tests, before a commit'
	@echo 'make cover                 whether the tests of the decision core reach all of it'
	@echo 'make dashboards            write deploy/monitoring/dashboards/*.json from the code beside them'
	@echo 'make docs                  the site from docs/, with the reference made from the program, in dist/docs'
	@echo 'make bench | lock | format | venv | clean'

# Made anew when the lock or the project's file changes, and only then.
$(STAMP): $(LOCK) pyproject.toml script/find-python
	rm -rf $(VENV)
	python=$$(script/find-python $(PYTHON)) && $$python -m venv $(VENV)
	@# The lock names everything, so nothing is resolved: an old pip would try a newer release than the locked one of an extra.
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r $(LOCK)
	$(BIN)/python -m pip check --quiet --disable-pip-version-check
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $(STAMP)

venv: $(STAMP)

demo: venv
	@script/needs git engine
	$(BIN)/reconciler demo $(ARGS)

needs: venv
	@script/needs git sshd promtool bwrap systemd-analyze chromium engine

test: needs
	RECONCILER_TEST_PROVIDER_MIRROR="$$(script/find-provider-mirror)" $(BIN)/python -m pytest -n $(JOBS) $(ARGS)

# `make test` plays some hundred of the one, and six of the other.
schedules: needs
	RECONCILER_TEST_SCHEDULES=10000 $(BIN)/python -m pytest -n $(JOBS) tests/scenario/test_lease.py $(ARGS)
	RECONCILER_TEST_PAIRS=200 RECONCILER_TEST_PROVIDER_MIRROR="$$(script/find-provider-mirror)" $(BIN)/python -m pytest -n $(JOBS) tests/crash/test_pair.py $(ARGS)

# Goes on where it was stopped: a house that ended well on this code is not played again. ARGS="--jobs 4 --points 60".
SEEDS ?= 0-199
crash: needs
	RECONCILER_TEST_APART=1 $(BIN)/python -m pytest -q tests/unit/cli/test_backup.py -k killed
	@$(BIN)/python -m tests.crash.matrix --seeds $(SEEDS) $(ARGS)

# `make test` plays two minutes of it. The report, a line of JSON, goes to stdout; ARGS="--seed 7" repeats the draws of a run.
SOAK_SECONDS ?= 7200
soak: needs
	@$(BIN)/python -m tests.soak.play --seconds $(SOAK_SECONDS) $(ARGS)

# New inputs go to tests/hostile/found; `python -m tests.hostile.fuzz keep NAME FOLDER` takes over what covers more.
SECONDS ?= 120
fuzz: venv
	$(BIN)/python -m tests.hostile.fuzz all $(SECONDS)

# `make test` plays a dozen of them.
MODULES ?= 300
rungs: needs
	RECONCILER_TEST_MODULES=$(MODULES) RECONCILER_TEST_PROVIDER_MIRROR="$$(script/find-provider-mirror)" \
	  $(BIN)/python -m pytest -n $(JOBS) tests/differential $(ARGS)

# `make test` plays sixty of them.
WARM_JOBS ?= 2000
workers: needs
	RECONCILER_TEST_WARM_JOBS=$(WARM_JOBS) $(BIN)/python -m pytest tests/crash/test_workers.py -s $(ARGS)

# `make test` plays it with twenty.
UNITS ?= 1000
poison: needs
	RECONCILER_TEST_POISON=$(UNITS) RECONCILER_TEST_PROVIDER_MIRROR="$$(script/find-provider-mirror)" \
	  $(BIN)/python -m pytest tests/e2e/test_poison.py $(ARGS)

# `make test` plays a fiftieth of it.
REQUESTS ?= 1000000
asked: needs
	RECONCILER_TEST_REQUESTS=$(REQUESTS) $(BIN)/python -m pytest tests/hostile/test_asked.py $(ARGS)

# `make test` plays it with two dozen, and four on AWS. The report, a line of JSON, goes to stdout.
scale: UNITS = 10000
scale: needs
	@mirror="$$(script/find-provider-mirror)"; RECONCILER_TEST_PROVIDER_MIRROR="$$mirror" $(BIN)/python -m tests.scale.play \
	  $(if $(AWS_UNITS),--units $(AWS_UNITS) --aws "$$mirror",--units $(UNITS)) $(ARGS)

# Each job a task, two controllers, some of both lost. `make test` plays it with two units.
UNITS_ON_FARGATE ?= 300
fargate: needs
	RECONCILER_TEST_FARGATE_UNITS=$(UNITS_ON_FARGATE) RECONCILER_TEST_PROVIDER_MIRROR="$$(script/find-provider-mirror)" \
	  $(BIN)/python -m pytest tests/e2e/test_fargate.py -s -k controller_are_lost --timeout 36000 $(ARGS)

check: lint fast

lint: venv
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

fast: venv
	$(BIN)/python -m pytest -n $(JOBS) -m 'not slow and not e2e' $(ARGS)

# What decides is reached by its own tests alone, to the last branch.
CORE = reconciler/desired/*,reconciler/deciding/*,reconciler/actual/breakglass.py,reconciler/layered.py
CORE_TESTS = tests/unit/desired tests/unit/deciding tests/unit/actual tests/unit/test_layered.py
cover: venv
	$(BIN)/python -m pytest -n $(JOBS) --cov --cov-report= $(ARGS) $(CORE_TESTS)
	$(BIN)/coverage report --fail-under=100 --include='$(CORE)'

format: venv
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: needs
	RECONCILER_TEST_PROVIDER_MIRROR="$$(script/find-provider-mirror)" $(BIN)/python -m bench $(ARGS)

dashboards: venv
	$(BIN)/python deploy/monitoring/dashboards.py

# What builds the site is in a lock of its own: no test needs it.
DOCSTAMP := $(VENV)/.docs-from-lock
$(DOCSTAMP): $(STAMP) requirements/docs.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements/docs.txt
	@touch $(DOCSTAMP)

docs: $(DOCSTAMP)
	$(BIN)/python -m mkdocs build --strict --quiet

# Names and hashes only: the lock says what, the reader's pip configuration says from where.
lock:
	test -x $(BIN)/uv || $(BIN)/python -m pip install --quiet uv
	$(UVLOCK) pyproject.toml --output-file requirements/runtime.txt
	$(UVLOCK) pyproject.toml --all-extras --group dev --constraint requirements/runtime.txt --output-file $(LOCK)
	$(UVLOCK) --group pyproject.toml:docs --constraint $(LOCK) --output-file requirements/docs.txt
	! grep -nE '://|file:|--(extra-)?index|--find-links' requirements/*.txt

clean:
	rm -rf $(VENV) .coverage .coverage.* .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
