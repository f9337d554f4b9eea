# What a person runs. Each recipe makes what it needs; `make help` lists them.
STACK ?= local
PYTHON = .venv/bin/python
export PYTHONDONTWRITEBYTECODE ?=

.PHONY: help up down preview status logs env check test

help: ## list the commands
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

up: .venv/ready ## serve STACK (default: local); ends when the model has answered
	@$(PYTHON) -m operations.deploy up --stack $(STACK)

preview: .venv/ready ## what `make up` would change; needs neither Docker nor a GPU
	@$(PYTHON) -m operations.deploy preview --stack $(STACK)

down: .venv/ready ## stop STACK and remove it; the weights stay
	@$(PYTHON) -m operations.deploy down --stack $(STACK)

env: .venv/ready ## print the exports under which plain `pulumi` works: eval "$$(make -s env)"
	@$(PYTHON) -m operations.deploy env

.venv/ready: requirements.txt
	@echo "Python packages: installing requirements.txt into .venv"
	@python3 -m venv .venv || { echo "error: mend: apt-get install python3-venv" >&2; exit 1; }
	@.venv/bin/pip install --quiet --disable-pip-version-check -r requirements.txt
	@touch $@
