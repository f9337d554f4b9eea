# What a person runs. Each recipe makes what it needs; `make help` lists them. The program behind
# them is `vllm-spark` (`.venv/bin/python -m vllm_spark --help`).

# Values are data: taken as they are written, and passed on in the environment, never as shell text.
VALUES = STACK BASE SERVER MODEL ENGINE MEMORY_GIB VLLM HOST ID REVISION LOG CONTAINER NAME RUNS JSON PRUNE RECORD
$(foreach name,$(VALUES),$(eval override $(name) := $$(value $(name))))
override STACK := $(or $(STACK),local)
export $(VALUES)

PYTHON = .venv/bin/python
CLI = @$(PYTHON) -m vllm_spark
INSTALL = python3 vllm_spark/setup/python_packages.py
ONE = --stack="$$STACK" $(if $(SERVER),--server="$$SERVER")
LOCK = .venv/bin/uv pip compile --quiet --universal --python-version 3.11 --custom-compile-command "make lock"
SOURCES = __main__.py benchmarks components docs offline policy tests vllm_spark

.PHONY: help up down rollback preview plan status caches logs stop restart fit model diagnose env docs format check test bench lock

help: ## list the commands
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 10

up: .venv/ready ## serve STACK (default: local); ends when the model has answered
	$(CLI) up --stack="$$STACK"

preview: .venv/ready ## what `make up` would change; needs neither Docker nor a GPU
	$(CLI) preview --stack="$$STACK"

plan: .venv/ready ## what merging the working tree into a commit would do: BASE=ref JSON=1
	$(CLI) plan --base="$$BASE" $(if $(JSON),--json)

rollback: .venv/ready ## return STACK to the last deployment that answered
	$(CLI) rollback $(ONE)

down: .venv/ready ## stop STACK and remove it; the weights stay
	$(CLI) down --stack="$$STACK"

status: .venv/ready ## whether STACK serves, now; JSON=1
	$(CLI) status $(ONE) $(if $(JSON),--json)

caches: .venv/ready ## what STACK's cache holds; PRUNE=1 removes compiled kernels that nobody uses
	$(CLI) caches --stack="$$STACK" $(if $(PRUNE),--prune) $(if $(JSON),--json)

logs: .venv/ready ## follow the log of STACK's server
	$(CLI) logs $(ONE)

fit: .venv/ready ## whether a model fits: STACK=x or MODEL=config.json; ENGINE='--flag value' VLLM=release HOST=gb10|discrete MEMORY_GIB=n JSON=1
	$(CLI) fit $(if $(MODEL),--model="$$MODEL",--stack="$$STACK") \
	  $(if $(ENGINE),--engine="$$ENGINE") $(if $(MEMORY_GIB),--memory-gib="$$MEMORY_GIB") \
	  $(if $(VLLM),--vllm="$$VLLM") $(if $(HOST),--host="$$HOST") $(if $(JSON),--json)

model: .venv/ready ## read a model's sizes from the hub into models/: ID=owner/name REVISION=commit
	$(CLI) model $(if $(REVISION),--revision="$$REVISION") -- "$$ID"

diagnose: .venv/ready ## why a vLLM did not start: LOG=file, LOG=- for standard input, or CONTAINER=name; JSON=1
	$(CLI) diagnose $(if $(JSON),--json) $(if $(CONTAINER),--container="$$CONTAINER",-- "$$LOG")

stop: .venv/ready ## stop STACK's server and free its memory; `make up` starts it again
	$(CLI) stop $(ONE)

restart: .venv/ready ## restart STACK's server; ends when the model has answered
	$(CLI) restart $(ONE)

env: .venv/ready ## print the exports under which plain `pulumi` works: eval "$$(make -s env)"
	$(CLI) env

docs: .venv/ready-dev ## write plans and config keys into README.md and docs/
	@.venv/bin/cog -r -I . README.md docs/*.md

format: .venv/ready-dev ## fix what a formatter and ruff can fix
	@.venv/bin/ruff check --fix .
	@.venv/bin/ruff format .

check: .venv/ready-dev ## the fast checks: ruff, codespell, mypy, layers, unit and stack tests
	@.venv/bin/ruff check .
	@.venv/bin/ruff format --check --quiet .
	@.venv/bin/codespell
	@.venv/bin/mypy $(SOURCES)
	@.venv/bin/lint-imports --no-logo
	@.venv/bin/pytest --quiet -n auto -m "not docker and not e2e and not registry" --cov

test: check ## everything: what check does, then real Docker, real Pulumi, real vLLM
	@$(PYTHON) -m offline.bootstrap
	@.venv/bin/pytest -n 3 --dist loadfile --no-loadscope-reorder -m "(docker or e2e or registry) and not alone and not emulated"
	@.venv/bin/pytest -m alone

bench: .venv/ready ## measure what docs/benchmarks.md tells: NAME=gate-delay; RUNS=n; RECORD=1
	@$(PYTHON) -m benchmarks $(if $(RUNS),--runs="$$RUNS") $(if $(RECORD),--record) -- $(if $(NAME),"$$NAME")

lock: .venv/ready-dev ## resolve the ranges of pyproject.toml anew, into requirements.txt and requirements-dev.txt
	@$(LOCK) --upgrade --extra policy pyproject.toml -o requirements.txt
	@$(LOCK) --upgrade --extra policy --constraints requirements.txt pyproject.toml --group dev -o requirements-dev.txt

# Of another processor, or of a Python that is gone: make it anew.
ifeq ($(shell test ! -e .venv/ready || $(PYTHON) -V >/dev/null 2>&1 || echo broken),broken)
.venv/ready: broken
.PHONY: broken
endif

.venv/ready: requirements.txt
	@$(INSTALL) $< $@

.venv/ready-dev: requirements-dev.txt .venv/ready
	@$(INSTALL) $< $@
