# The commands of the README. Each makes the environment it needs and runs in it.

PYTHON ?= python3
VENV ?= .venv
VENV4 ?= .venv-tl4
# The processor-only build of torch first: a plain "torch" can pull gigabytes of GPU libraries.
TORCH = torch==2.13.0

.PHONY: help demo test test-tl4 lint benchmark clean

help:
	@echo "make demo      a prompt, and what drove its prediction: in the terminal and as demo.html"
	@echo "make test      everything that must stay true, on TransformerLens 3 (both hosts)"
	@echo "make test-tl4  the suite on TransformerLens 4 (its one host)"
	@echo "make benchmark what a scope costs, measured here"

demo: $(VENV)/.made
	$(VENV)/bin/tl-jacobian attribute "As a smart and honest AI, I always try to be nice and" \
	    --target " helpful" --skip-first --html demo.html --json demo.json
	@echo; echo "The same as a page that works offline: demo.html"

test: lint $(VENV)/.made
	$(VENV)/bin/python -m pytest

test-tl4: $(VENV4)/.made
	$(VENV4)/bin/python -m pytest

lint: $(VENV)/.made
	$(VENV)/bin/ruff check --output-format concise .
	$(VENV)/bin/ruff format --check --quiet .
	$(VENV)/bin/basedpyright --pythonpath $(VENV)/bin/python
	$(VENV)/bin/lint-imports --no-cache
	$(VENV)/bin/deptry --no-ansi tl_jacobian

benchmark: $(VENV)/.made
	$(VENV)/bin/python -m benchmarks.scope_cost

clean:
	rm -rf $(VENV) $(VENV4) demo.html demo.json

$(VENV)/.made: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install -q -c constraints.txt $(TORCH)
	$(VENV)/bin/pip install -q -c constraints.txt "transformer-lens==3.9.0" -e ".[demo,plot,dev]"
	touch $@

$(VENV4)/.made: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV4)
	$(VENV4)/bin/pip install -q -c constraints.txt $(TORCH)
	$(VENV4)/bin/pip install -q -c constraints.txt "transformer-lens==4.3.0" -e ".[demo,plot,dev]"
	touch $@
