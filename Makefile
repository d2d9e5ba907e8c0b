# What there is to do here: `make help`. Needs python3 (3.11 or newer, with venv) and make; the rest is installed into
# .venv by the first call, once. A second call installs nothing.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
ARGS ?=

UV_VERSION := 0.13.9
MUTMUT_VERSION := 3.8.1
COMPILE := .venv-lock/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
    --no-emit-index-url --no-header

export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help compare bench simulate sweep ablate soak peers orchestrated choreographed test cover mutants lint format lock clean gone

help: ## show this list
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' Makefile | awk -F '\t' '{ printf "make %-14s %s\n", $$1, $$2 }'

compare: $(VENV)/.run ## run the scenarios in both modes and compare them; ARGS="run happy-path" runs one
	@exec $(BIN)/python -m compare $(or $(ARGS),run)

bench: $(VENV)/.run ## measure both modes and their limit; ARGS=--quick ends within a minute
	@exec $(BIN)/python -m compare bench $(ARGS)

peers: $(VENV)/.peers ## install the frameworks that `bench` can measure beside the modes, see docs/peers.md
	@$(BIN)/python -m compare.peers

simulate: $(VENV)/.run ## thousands of histories from a seed; ARGS="--seed 1 --runs 100" for fewer of them
	@exec $(BIN)/python -m compare simulate $(ARGS)

sweep: $(VENV)/.run ## every history of some small sagas, with a crash at every boundary; ARGS="--crashes 2" for pairs
	@exec $(BIN)/python -m compare sweep $(ARGS)

ablate: $(VENV)/.run ## what each protection prevents, in which style; takes minutes
	@exec $(BIN)/python -m compare ablate $(ARGS)

soak: $(VENV)/.run ## thousands of orders while services are killed; ARGS="--orders 400" for fewer of them
	@exec $(BIN)/python -m compare soak $(ARGS)

orchestrated: $(VENV)/.run ## start all services of the orchestrated mode; Ctrl-C stops them
	@exec $(BIN)/python -m orchestrated $(ARGS)

choreographed: $(VENV)/.run ## start all services of the choreographed mode; Ctrl-C stops them
	@exec $(BIN)/python -m choreographed $(ARGS)

test: $(VENV)/.dev ## run the tests; ARGS='-m "not kafka"' leaves out those that need Java
	@$(BIN)/python $(COVERAGE) -m pytest $(ARGS)

cover: ## run the tests and report what they cover
	@rm -f .coverage .coverage.*
	@$(MAKE) --no-print-directory test COVERAGE='-m coverage run'
	@$(BIN)/coverage combine --quiet
	@$(BIN)/coverage report

mutants: $(VENV)/.mutants ## change deciders, wirings and core, and see what no test notices; takes long, see docs/mutation.md
	@$(BIN)/mutmut run --max-children 1 $(ARGS)
	@$(BIN)/mutmut results

lint: $(VENV)/.dev ## check format, code, types, Docker and Compose files, scripts
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/pip check
	$(BIN)/check-jsonschema --builtin-schema vendor.compose-spec docker-compose.yml
	@# The schema knows no references between services; Compose itself does, where it is installed. It needs no engine.
	@if docker compose version >/dev/null 2>&1; then \
	    for profile in orchestrated choreographed; do docker compose --profile $$profile config -q || exit; done; \
	else echo 'docker compose is not installed: its file was checked against the schema only'; fi
	$(BIN)/hadolint Dockerfile
	@if test -x $(BIN)/shellcheck; then $(BIN)/shellcheck .ci/run; \
	else echo 'shellcheck has no wheel for this machine: left out'; fi
	@# What the pages tell a reader to run has to exist.
	@grep -ohE '(^|`)make [a-z]+' README.md CONTRIBUTING.md | sed 's/.*make //' | sort -u | while read -r target; do \
	    grep -q "^$$target:" Makefile || { echo "A page names \`make $$target\`, which does not exist"; exit 1; }; done

format: $(VENV)/.dev ## format the code and mend what can be mended by itself
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

lock: .venv-lock/.uv ## pin the dependencies anew in requirements/; ARGS=--upgrade moves to newer versions
	$(COMPILE) $(ARGS) pyproject.toml -o requirements/run.txt
	$(COMPILE) $(ARGS) pyproject.toml --group dev -c requirements/run.txt -o requirements/dev.txt
	$(COMPILE) $(ARGS) --group build -c requirements/dev.txt -o requirements/build.txt
	$(COMPILE) $(ARGS) pyproject.toml --extra peers -c requirements/dev.txt -o requirements/peers.txt

clean: ## remove what was installed and what tools left
	@rm -rf .venv .venv-* build dist mutants .coverage .coverage.* htmlcov .hypothesis .schemathesis
	@rm -rf .mypy_cache .pytest_cache .ruff_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

# --- the environment -------------------------------------------------------------------------------------------------
# $(VENV)/.whole exists while no install is under way. Where it is missing, an install was cut short and may have left
# half a package that pip takes for a whole one: the environment is made anew.

define new_venv
$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
    found=`command -v $(PYTHON) >/dev/null && $(PYTHON) --version 2>&1 || echo missing`; \
    echo "Python 3.11 or newer is needed; $(PYTHON) is: $$found." >&2; \
    echo "Name another one: PYTHON=python3.12 make $(MAKECMDGOALS)" >&2; exit 1; }; \
$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
    echo "$(PYTHON) lacks venv. Install it (Debian, Ubuntu: apt install python3-venv) or name another Python:" >&2; \
    echo "PYTHON=python3.12 make $(MAKECMDGOALS)" >&2; exit 1; }; \
echo "Making $(VENV) with `$(PYTHON) --version`"; \
$(PYTHON) -m venv --clear $(VENV) && touch $(VENV)/.whole
endef

# $(1): the locked files to install; $(2): the stamps that are then true. The project itself is linked, not copied.
define install
@test -e $(VENV)/.whole || { $(new_venv); }
@rm -f $(VENV)/.whole
@echo 'Installing into $(VENV) (once)'
@$(BIN)/pip install --quiet --require-hashes $(addprefix -r ,$(1))
@$(BIN)/pip install --quiet --no-deps --no-build-isolation -e .
@touch $(VENV)/.whole $(2)
endef

# There is no environment yet, or the Python that it links to has gone. A file's age would not tell: the link's is that
# of the Python it leads to.
gone:
	@$(new_venv)
GONE := $(shell test -x $(BIN)/python || echo gone)

$(VENV)/.run: $(GONE) requirements/run.txt requirements/build.txt pyproject.toml
	$(call install,requirements/run.txt requirements/build.txt,$@)

# requirements/dev.txt holds all of the other two, at the same versions.
$(VENV)/.dev: $(GONE) requirements/dev.txt pyproject.toml
	$(call install,requirements/dev.txt,$@ $(VENV)/.run)

# requirements/peers.txt, likewise, holds all of requirements/run.txt.
$(VENV)/.peers: $(VENV)/.run requirements/peers.txt
	@echo 'Installing the peers into $(VENV) (once)'
	@$(BIN)/pip install --quiet --require-hashes -r requirements/peers.txt
	@touch $@

# In no lock file, for nothing else needs it.
$(VENV)/.mutants: $(VENV)/.dev Makefile
	@$(BIN)/pip install --quiet mutmut==$(MUTMUT_VERSION)
	@touch $@

.venv-lock/.uv: Makefile
	@$(PYTHON) -m venv --clear .venv-lock
	@.venv-lock/bin/pip install --quiet uv==$(UV_VERSION)
	@touch $@
