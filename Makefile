# What a person runs. Each recipe makes what it needs; `make help` lists them.
STACK ?= local
PYTHON = .venv/bin/python
SOURCES = __main__.py benchmarks bootstrap components engine in_image offline operations tests

.PHONY: help up down rollback preview status caches logs stop restart fit diagnose env docs check test bench

help: ## list the commands
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 10

up: .venv/ready ## serve STACK (default: local); ends when the model has answered
	@$(PYTHON) -m operations.deploy up --stack $(STACK)

preview: .venv/ready ## what `make up` would change; needs neither Docker nor a GPU
	@$(PYTHON) -m operations.deploy preview --stack $(STACK)
	@$(PYTHON) -m operations.status --stack $(STACK) --drift

rollback: .venv/ready ## return STACK to the last deployment that answered
	@$(PYTHON) -m operations.rollback --stack $(STACK)

down: .venv/ready ## stop STACK and remove it; the weights stay
	@$(PYTHON) -m operations.deploy down --stack $(STACK)

status: .venv/ready ## whether STACK serves, now
	@$(PYTHON) -m operations.status --stack $(STACK)

caches: .venv/ready ## what STACK's cache holds; PRUNE=1 removes compiled kernels that nobody uses
	@$(PYTHON) -m operations.caches --stack $(STACK) $(if $(PRUNE),--prune)

logs: .venv/ready ## follow the log of STACK's server
	@$(PYTHON) -m operations.docker_command logs --stack $(STACK)

fit: .venv/ready ## whether a model fits: STACK=x or MODEL=config.json; ENGINE='--flag value' MEMORY_GIB=n JSON=1
	@$(PYTHON) -m operations.fit $(if $(MODEL),--model "$(MODEL)",--stack $(STACK)) \
	  $(if $(ENGINE),--engine='$(ENGINE)') $(if $(MEMORY_GIB),--memory-gib $(MEMORY_GIB)) $(if $(JSON),--json)

diagnose: .venv/ready ## why a vLLM did not start: LOG=file, or LOG=- for standard input; JSON=1
	@$(PYTHON) -m operations.diagnose "$(LOG)" $(if $(JSON),--json)

stop: .venv/ready ## stop STACK's server and free its memory; `make up` starts it again
	@$(PYTHON) -m operations.docker_command stop --stack $(STACK)

restart: .venv/ready ## restart STACK's server; ends when the model has answered
	@$(PYTHON) -m operations.docker_command restart --stack $(STACK)
	@$(MAKE) --no-print-directory up

env: .venv/ready ## print the exports under which plain `pulumi` works: eval "$$(make -s env)"
	@$(PYTHON) -m operations.deploy env

docs: .venv/ready-dev ## write plans and config keys into README.md and docs/
	@.venv/bin/cog -r -I . README.md docs/*.md

check: .venv/ready-dev ## the fast checks: ruff, mypy, unit and stack tests
	@.venv/bin/ruff check .
	@.venv/bin/ruff format --check --quiet .
	@.venv/bin/mypy $(SOURCES)
	@.venv/bin/pytest --quiet -n auto -m "not docker and not e2e"

test: check ## everything: what check does, then real Docker, real Pulumi, real vLLM
	@$(PYTHON) -m bootstrap
	@.venv/bin/pytest -n 3 --dist loadfile --no-loadscope-reorder -m "(docker or e2e) and not alone"
	@.venv/bin/pytest -m alone

bench: .venv/ready ## measure what docs/benchmarks.md tells: NAME=gate-delay; RUNS=n; RECORD=1
	@$(PYTHON) -m benchmarks $(NAME) $(if $(RUNS),--runs $(RUNS)) $(if $(RECORD),--record)

.venv/ready: requirements.txt
	@echo "Python packages: installing requirements.txt into .venv"
	@python3 -m venv .venv || { echo "mend: apt-get install python3-venv" >&2; exit 1; }
	@.venv/bin/pip install --quiet --disable-pip-version-check -r requirements.txt
	@touch $@

.venv/ready-dev: .venv/ready requirements-dev.txt
	@echo "Python packages: installing requirements-dev.txt into .venv"
	@.venv/bin/pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	@touch $@
