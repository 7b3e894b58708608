# make quickstart   install into .venv, then the main job: from questions to a report
#                   (HALF=kaft or HALF=promot: one half of it)
# make test         install what tests need, then the whole test suite
# make lint         style, format and types
# make bench        what the speed claims are measured with
#
# VENV=path uses another virtual environment, PYTHON=path another Python to make it (3.11 or newer).
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.PHONY: help quickstart test lint bench clean

VENV ?= .venv
# The first Python of these that is 3.11 or newer; named ones first, because TensorFlow's packages
# come some months after a new Python.
PYTHON ?= $(firstword $(shell for p in python3.12 python3.11 python3.13 python3; do \
  $$p -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
  && echo $$p; done))
PIP := $(VENV)/bin/python -m pip install --quiet --disable-pip-version-check
# What an installation depends on: it is made again when one of these is newer than its stamp.
METADATA := setup.py pyproject.toml

help:
	@sed -n 's/^# \{0,1\}//p' Makefile | head -7

$(VENV)/bin/python:
	@test -n "$(PYTHON)" || { echo "error: no Python 3.11 or newer found; set PYTHON=path" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: $(METADATA) | $(VENV)/bin/python
	@echo "installing into $(VENV) (some minutes)"
	@$(PIP) -e .
	@touch $@

$(VENV)/.installed-%: $(METADATA) | $(VENV)/bin/python
	@echo "installing into $(VENV), with what $* needs (some minutes the first time)"
	@$(PIP) -e '.[$*]'
	@touch $@ $(VENV)/.installed

HALF ?= both

quickstart: $(VENV)/.installed
	@$(VENV)/bin/kaft-promot quickstart --half=$(HALF)

test: $(VENV)/.installed-test
	@$(VENV)/bin/python -m pytest

lint: $(VENV)/.installed-lint
	@$(VENV)/bin/ruff check .
	@$(VENV)/bin/ruff format --check .
	@$(VENV)/bin/mypy

# The augment benchmark reads a question file of your own: make bench QUESTIONS=file
KAFT_PROMOT_SHARED ?= ../shared
QUESTIONS ?= $(KAFT_PROMOT_SHARED)/data/squad2/dev_half_a.jsonl.gz

bench: $(VENV)/.installed
	@$(VENV)/bin/python benchmarks/augment_speed.py --input $(QUESTIONS)
	@for file in $(sort $(wildcard benchmarks/bench_*.py)); do \
	  echo "== $$file"; $(VENV)/bin/python $$file; done

clean:
	rm -rf $(VENV) build dist *.egg-info
