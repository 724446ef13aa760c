# `make help` lists the targets. Everything that is installed goes into .venv and build/.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

# The first interpreter that is new enough and really starts: a version manager's shim may be on
# PATH and fail when it is called.
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11 python3.14; do \
	$$p -c 'import sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$p; break; }; done)
PYTHON_313 ?= $(shell for p in python3.13 "$$HOME"/.pyenv/versions/3.13*/bin/python /usr/bin/python3.13; do \
	"$$p" -c 'import sys, venv; sys.exit(sys.version_info[:2] != (3, 13))' 2>/dev/null && { echo "$$p"; break; }; done)
VENV := .venv
BIN := $(VENV)/bin
JOBS ?= 3
ENVIRONMENT ?= default

# A home that is not there or cannot be written to, as in some containers: the tools keep theirs here.
ifneq ($(shell test -w "$$HOME" && echo yes),yes)
export HOME := $(CURDIR)/build/home
$(shell mkdir -p "$(CURDIR)/build/home")
endif

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## /{printf "  make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# Everything here starts with one of these two ------------------------------------------------------

.PHONY: demo
demo: $(VENV)/installed ## See every function answer, then 200 environments against 65 connections
	$(BIN)/python -m local.demo
	@if [ -d lab/experiment ]; then $(BIN)/python -m lab.experiment; \
	else echo "No lab/experiment/ here: the experiment is left out."; fi

.PHONY: test
test: $(VENV)/installed $(VENV)/rivals servers ## Run all tests, on MariaDB and MySQL; PYTEST=… for some of them
	@rm -rf build/coverage && mkdir -p build/coverage
	$(BIN)/coverage run -m pytest -n $(JOBS) --dist worksteal $(PYTEST)
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report $(if $(strip $(PYTEST)),,--fail-under=95)

.PHONY: test-pages
test-pages: $(VENV)/libraries servers ## Run the code of the pages on other libraries, with those libraries
	$(BIN)/python -m pytest $(wildcard tests/test_pages.py tests/test_guides.py) layers/single_connection/tests/test_durable.py $(PYTEST)

.PHONY: test-quick
test-quick: $(VENV)/installed ## The tests that need no server and no time: a minute
	$(BIN)/python -m pytest -n $(JOBS) -m "not server and not slow" $(PYTEST)

# Checks --------------------------------------------------------------------------------------------

.PHONY: check
check: lint types validate test test-3.13 ## All that has to be green: lint, types, template, tests

.PHONY: lint
lint: $(VENV)/installed ## Style and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

.PHONY: format
format: $(VENV)/installed ## Put the code into its format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

.PHONY: types
types: $(VENV)/installed ## Types, strict for the layer
	$(BIN)/mypy
	$(BIN)/mypy -p single_connection
	$(BIN)/mypy examples/existing-database/app.py

.PHONY: validate
validate: $(VENV)/installed .venv-checkov/installed ## The template, by SAM's linter and checkov
	AWS_DEFAULT_REGION=us-east-1 SAM_CLI_TELEMETRY=0 $(BIN)/sam validate --lint
	AWS_DEFAULT_REGION=us-east-1 SAM_CLI_TELEMETRY=0 $(BIN)/sam validate --lint --template examples/existing-database/template.yaml
	.venv-checkov/bin/python -m checkov.main --config-file .checkov.yaml

.PHONY: test-3.13
test-3.13: servers ## The layer's tests on Lambda's own Python and on MySQL, where there is one
ifeq ($(PYTHON_313),)
	@echo "SKIPPED: no working Python 3.13 here; install one (python3.13 and python3.13-venv) to run the layer's tests on it"
else
	@$(MAKE) --no-print-directory .venv-3.13/installed
	.venv-3.13/bin/python -m pytest -n $(JOBS) --dist worksteal --database mysql \
		--ignore layers/single_connection/tests/test_sqlalchemy_suite.py layers/single_connection/tests $(PYTEST)
endif

# One thing at a time -------------------------------------------------------------------------------

# DEBUG counts only where it is given here: as a variable it often belongs to another tool.
.PHONY: invoke
invoke: $(VENV)/installed ## Invoke one function: make invoke FUNCTION=orders_api EVENT=products [DEBUG=1]
	@$(BIN)/python -m local.invoke "$${FUNCTION-}" "$${EVENT-}" \
		--debug "$(if $(filter command,$(firstword $(origin DEBUG))),$(DEBUG))"

.PHONY: serve
serve: $(VENV)/installed ## The whole stack on localhost, with a page [PORT=8000]
	@$(BIN)/python -m local.serve $(if $(PORT),--port $(PORT))

.PHONY: database
database: $(VENV)/installed ## Start a database that stays, for invoke, serve and sql [SERVER=mysql]
	@$(BIN)/python -m local.keep start $(if $(SERVER),--server $(SERVER))

.PHONY: database-stop
database-stop: $(VENV)/installed ## Stop it; its data stays
	@$(BIN)/python -m local.keep stop

.PHONY: database-remove
database-remove: $(VENV)/installed ## Stop it and take its data away
	@$(BIN)/python -m local.keep remove

.PHONY: sql
sql: $(VENV)/installed ## A client on that database [QUERY="SELECT 1"]
	@$(BIN)/python -m local.sql $${QUERY:+"$$QUERY"}

.PHONY: local
local: $(VENV)/installed ## MySQL in Docker for `sam local` [DATABASE=host: on this machine] [IMAGE=own: pull none]
	$(BIN)/python -m local.docker.prepare $(if $(filter host,$(DATABASE)),--host) $(if $(filter own,$(IMAGE)),--own-image)

.PHONY: experiment
experiment: $(VENV)/installed ## 200 warm environments against 65 connections, with a chart
	$(BIN)/python -m lab.experiment

.PHONY: bench
bench: $(VENV)/installed $(VENV)/rivals servers ## What a connection costs, against six others
	$(BIN)/python -m lab.connect

.PHONY: bench-cold
bench-cold: build $(VENV)/installed servers ## CPU until the first answer of a cold start, against the documented way
	PYTHON_313="$(PYTHON_313)" $(BIN)/python -m lab.connect.cold_start

.PHONY: bench-overload
bench-overload: $(VENV)/installed $(VENV)/rivals servers ## Up to ten times more callers than connections, beside a queue and five others
	$(BIN)/python -m lab.overload

# The same seed strikes the same faults: SOAK="--seed 7". SOAK="--write-docs" renews docs/faults.md.
.PHONY: soak
soak: $(VENV)/installed servers ## The shop under faults for ten minutes, then its books [SERVER=mysql SOAK_SECONDS=120]
	$(BIN)/python -m lab.soak $(if $(SERVER),--server $(SERVER)) $(if $(SOAK_SECONDS),--seconds $(SOAK_SECONDS)) $(SOAK)

.PHONY: build
build: $(VENV)/installed ## What will be deployed, in .aws-sam/build
	PYTHON_313="$(PYTHON_313)" SAM_CLI_TELEMETRY=0 $(BIN)/sam build

.PHONY: deploy
deploy: build ## Ask AWS whether it can work, then deploy; ENVIRONMENT=prod for the other section
	$(BIN)/python -m deploy $(ENVIRONMENT) $(DEPLOY_FLAGS)

.PHONY: adopt
adopt: $(VENV)/installed ## Make a fresh copy yours: make adopt NAME=bookings [KEEP_SHOP=1] [HOLDER="Ada Lovelace"]
	@$(BIN)/python -m starter.adopt "$(NAME)" "$(KEEP_SHOP)" "$(HOLDER)"

.PHONY: function
function: $(VENV)/installed ## A new function of yours: make function NAME=venue_admin TRIGGER=http|queue|schedule|direct
	@$(BIN)/python -m starter.function add "$(NAME)" "$(TRIGGER)"

.PHONY: function-remove
function-remove: $(VENV)/installed ## The reverse; what its migrations made stays: make function-remove NAME=venue_admin
	@$(BIN)/python -m starter.function remove "$(NAME)"

.PHONY: budget
budget: $(VENV)/installed ## Share each class's connections out among the functions, in template.yaml
	@$(BIN)/python -m starter.budget

# BUSY=1 where others are at work on the stack, or a proxy keeps connections.
WHICH_STACK = $(if $(STACK),--stack $(STACK),--environment $(ENVIRONMENT)) $(if $(BUSY),--busy)

.PHONY: smoke
smoke: $(VENV)/installed ## Whether a deployed stack works: signed requests, and nothing left open [STACK=… BUSY=1]
	$(BIN)/python -m deploy.smoke $(WHICH_STACK) $(SMOKE)

.PHONY: load
load: $(VENV)/installed ## What a deployed stack bears [STACK=… LOAD="--callers 10 30 60 --seconds 10"]
	$(BIN)/python -m deploy.load $(WHICH_STACK) $(LOAD)

.PHONY: package
package: $(VENV)/installed .venv-release/installed ## The layer by itself: wheel, sdist, zip for Lambda, bill of materials
	@[ -z "$(TAG)" ] || grep -qx '__version__ = "$(TAG:v%=%)"' layers/single_connection/src/single_connection/__init__.py || \
		{ echo "$(TAG) is not the package's version: see __version__ in its __init__.py" >&2; exit 1; }
	rm -rf build/package
	$(BIN)/python -m build --no-isolation --outdir build/package layers/single_connection
	$(MAKE) --no-print-directory -C layers/single_connection layer-zip DIST="$(CURDIR)/build/package" \
		PYTHON="$(CURDIR)/$(BIN)/python" PYTHON_313="$(PYTHON_313)"
	.venv-release/bin/cyclonedx-py requirements layers/single_connection/requirements.txt \
		--pyproject layers/single_connection/pyproject.toml --mc-type library --output-reproducible \
		--output-file build/package/single_connection.cdx.json

# Installed things ----------------------------------------------------------------------------------

# One is enough: the tests of a missing one are skipped, loudly. MySQL is unpacked into build/ (80 MB
# to fetch, 300 MB unpacked), without root, where Debian's packages can be reached.
.PHONY: servers
servers: $(VENV)/installed
	@$(BIN)/python -m local.servers install

$(VENV)/installed: requirements-dev.lock layers/single_connection/pyproject.toml
	@if [ -z "$(PYTHON)" ]; then echo "No working Python 3.11 or newer with the venv module: install one (Debian: apt-get install python3-venv; macOS: brew install python)" >&2; exit 1; fi
	@$(PYTHON) -m local.install $(VENV) requirements-dev.lock --size "650 MB"
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable layers/single_connection
	@touch $@

# Other people's drivers, which some tests and the benchmarks compare with, one by one: where one
# cannot be compiled, the tests that need it say so and are skipped, and the others are there.
define rivals
mkdir -p build/rivals; rm -f build/rivals/*.txt; missing=; \
awk '/^[A-Za-z]/ { split($$1, name, "=="); file = "build/rivals/" name[1] ".txt" } { print > file }' requirements-rivals.lock; \
for file in build/rivals/*.txt; do \
	$(1)/bin/pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r $$file >$$file.log 2>&1 || missing="$$missing $$(basename $$file .txt)"; \
done; \
[ -z "$$missing" ] || { echo "NOT INSTALLED:$$missing, see build/rivals/ (Debian: apt-get install libmariadb-dev pkg-config gcc python3-dev, then make test again)" >&2; false; }
endef

$(VENV)/rivals: requirements-rivals.lock | $(VENV)/installed
	@if { $(call rivals,$(VENV)); }; then touch $@; fi

$(VENV)/libraries: requirements-libraries.lock | $(VENV)/installed
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements-libraries.lock
	@touch $@

.venv-3.13/installed: requirements-dev.lock requirements-rivals.lock layers/single_connection/pyproject.toml
	@$(PYTHON_313) -m local.install .venv-3.13 requirements-dev.lock --size "650 MB"
	.venv-3.13/bin/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable layers/single_connection
	-@$(call rivals,.venv-3.13)
	@touch $@

# checkov's pins contradict SAM's: it lives by itself. It is started as a module, as its script does not
# start in a folder whose name has a space.
.venv-checkov/installed: requirements-checkov.lock
	@$(PYTHON) -m local.install .venv-checkov requirements-checkov.lock --size "290 MB"
	@touch $@

# What writes the bill of materials, with all that needs, is installed for a release only.
.venv-release/installed: requirements-release.lock
	@$(PYTHON) -m local.install .venv-release requirements-release.lock --size "100 MB"
	@touch $@

.PHONY: lock
lock: $(VENV)/installed ## Resolve the dependencies of pyproject.toml anew
	$(BIN)/pip install --quiet uv
	$(BIN)/uv pip compile --quiet --no-header --generate-hashes --universal --python-version 3.11 \
		--group pyproject.toml:functions --group pyproject.toml:local --group pyproject.toml:check \
		layers/single_connection/pyproject.toml -o requirements-dev.lock
	$(BIN)/uv pip compile --quiet --no-header --generate-hashes --universal --python-version 3.11 \
		--group pyproject.toml:rivals -c requirements-dev.lock \
		layers/single_connection/pyproject.toml -o requirements-rivals.lock
	$(BIN)/uv pip compile --quiet --no-header --generate-hashes --universal --python-version 3.11 \
		--group pyproject.toml:libraries -c requirements-dev.lock \
		layers/single_connection/pyproject.toml -o requirements-libraries.lock
	$(BIN)/uv pip compile --quiet --no-header --generate-hashes --universal --python-version 3.11 \
		--group pyproject.toml:release -o requirements-release.lock
	$(BIN)/uv pip compile --quiet --no-header --generate-hashes --universal --python-version 3.11 \
		requirements-checkov.in -o requirements-checkov.lock

	for wanted in functions/*/requirements.in; do [ -e "$$wanted" ] || continue; \
		$(BIN)/uv pip compile "$$wanted" --quiet --no-header --generate-hashes --universal \
		--python-version 3.13 -c requirements-dev.lock --no-emit-package greenlet \
		-o "$${wanted%.in}.txt"; done # greenlet is for asyncio alone
	printf 'aws-lambda-powertools\nPyMySQL\n' | $(BIN)/uv pip compile - --quiet --no-header \
		--generate-hashes --universal --python-version 3.13 -c requirements-dev.lock \
		-o layers/single_connection/requirements.txt

.PHONY: clean
clean: ## Remove everything that was installed or built, also the database that stays
	@[ ! -e build/database/database.json ] || $(BIN)/python -m local.keep remove
	rm -rf build .aws-sam .venv .venv-3.13 .venv-checkov .venv-release .hypothesis .pytest_cache .mypy_cache .ruff_cache
