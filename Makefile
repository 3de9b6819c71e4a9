SHELL := bash
PYTHON ?= python3
PROMPT ?= Say hello, and tell in one sentence what you can do.
export CMAKE_ARGS ?= -DLLAVA_BUILD=OFF
export PIP_DISABLE_PIP_VERSION_CHECK := 1

BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --progress-bar off

MINUTES ?= 30

.PHONY: chat test lint types imports tests fuzz bench image test-image sbom clean

chat: .venv/.chat
	@if [ -t 0 ] && [ -t 1 ]; then exec $(BIN)/llama-chat; \
	elif [ ! -t 0 ] && read -r -t 3 line; then { echo "$$line"; cat; } | $(BIN)/llama-chat ask; \
	else $(BIN)/llama-chat ask "$(PROMPT)" </dev/null; fi

test: lint types imports tests

lint: .venv/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: .venv/.test
	$(BIN)/mypy

imports: .venv/.test
	$(BIN)/lint-imports

tests: .venv/.test
	$(BIN)/pytest

fuzz: .venv/.test
	$(BIN)/python -m tests.hostile $(MINUTES)

bench: .venv/.bench
	$(BIN)/python -m tests.bench

image:
	container/build runtime-cpu

test-image: image .venv/.test .venv-tools/.done
	TEST_IMAGE=localhost/llama-chat:cpu CONTAINER_TOOLS=$(CURDIR)/.venv-tools/bin $(BIN)/pytest tests/container

sbom: image .venv-tools/.done
	mkdir -p build
	podman save --quiet --format oci-archive --output build/llama-chat.tar localhost/llama-chat:cpu
	.venv-tools/bin/syft --quiet oci-archive:build/llama-chat.tar --output cyclonedx-json=build/sbom.cdx.json
	rm build/llama-chat.tar

clean:
	rm -rf .venv .venv-tools build

.venv/bin/python:
	$(PYTHON) -m venv .venv

.venv/.chat: pyproject.toml | .venv/bin/python
	@echo "Installing; the first time llama.cpp is compiled, which takes about 5 minutes on 2 cores." >&2
	$(PIP) --editable '.[demo]' >&2
	@touch $@

.venv/.test: pyproject.toml | .venv/bin/python
	$(PIP) --editable '.[demo,test]' >&2
	@touch $@ .venv/.chat

.venv/.bench: pyproject.toml | .venv/bin/python
	$(PIP) --editable '.[demo,test,bench]' >&2
	@touch $@

.venv-tools/.done: container/tools.txt
	$(PYTHON) -m venv .venv-tools
	.venv-tools/bin/python -m pip install --quiet --progress-bar off --requirement container/tools.txt >&2
	@touch $@
