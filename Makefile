# The commands of the README. Each makes the environment it needs and runs in it.

PYTHON ?= python3
VENV ?= .venv
VENV4 ?= .venv-tl4
# The processor-only build of torch first: a plain "torch" can pull gigabytes of GPU libraries.
TORCH = torch==2.13.0

# A process of tests a core, at most eight; who has none left takes over from another.
PYTEST = -m pytest -n logical --maxprocesses 8 --dist worksteal
# Of how many architectures each test takes its examples: one (another one for each test), or all.
EVERYTHING = TL_JACOBIAN_TESTS=all
# Results, figures, linear algebra and the store of a corpus know no host: TransformerLens's version can't change them.
WITH_A_MODEL = tests tl_jacobian --ignore tests/results --ignore tests/render --ignore tests/core/linalg \
    --ignore tests/studies/corpus/test_corpus_kills.py --ignore tests/studies/corpus/test_corpus_processes.py

.PHONY: help demo test test-all test-tl4 test-everything quick-lint lint docs package benchmark clean

help:
	@echo "make demo      a prompt, and what drove its prediction: in the terminal and as demo.html"
	@echo "make test      what must stay true, within minutes: each architecture, each processing state, TransformerLens 3"
	@echo "make test-all  what CI runs: the demo model, notebooks, browsers, kills too; TransformerLens 3 and 4"
	@echo "make test-everything  the same with every pair of architecture and state, all on both versions"
	@echo "make docs      the documentation, built offline: docs/_build/html"
	@echo "make package   what is published, checked: builds it, installs the wheel without the checkout, explains a prompt"
	@echo "make benchmark what a scope costs, measured here"

demo: $(VENV)/.made
	$(VENV)/bin/tl-jacobian attribute "As a smart and honest AI, I always try to be nice and" \
	    --target " helpful" --skip-first --html demo.html --json demo.json
	@echo; echo "The same as a page that works offline: demo.html"

test: quick-lint $(VENV)/.made
	$(VENV)/bin/python $(PYTEST) -m "not slow"

test-all: lint docs package $(VENV)/.made
	$(VENV)/bin/python $(PYTEST)
	$(MAKE) test-tl4

test-tl4: $(VENV4)/.made
	$(VENV4)/bin/python $(PYTEST) -m "not slow" $(WITH_A_MODEL)

test-everything: $(VENV)/.made $(VENV4)/.made
	$(EVERYTHING) $(VENV)/bin/python $(PYTEST)
	$(EVERYTHING) $(VENV4)/bin/python $(PYTEST) $(WITH_A_MODEL)

quick-lint: $(VENV)/.made
	$(VENV)/bin/ruff check --output-format concise .
	$(VENV)/bin/ruff format --check --quiet .

lint: quick-lint
	$(VENV)/bin/basedpyright --pythonpath $(VENV)/bin/python
	$(VENV)/bin/basedpyright --pythonpath $(VENV)/bin/python tests/typing/user_script.py
	$(VENV)/bin/lint-imports --no-cache
	$(VENV)/bin/deptry --no-ansi tl_jacobian

docs: $(VENV)/.made
	$(VENV)/bin/python -m sphinx -W --keep-going -b html -q docs docs/_build/html
	@echo; echo "docs/_build/html/index.html"

# Into an environment that has the wheel alone; what it depends on is lent by $(VENV), whose link to the checkout isn't.
package: $(VENV)/.made
	rm -rf build dist
	$(VENV)/bin/python -m build --no-isolation --outdir dist . >build.log 2>&1 || (cat build.log; exit 1)
	$(VENV)/bin/twine check --strict dist/*.whl dist/*.tar.gz
	$(PYTHON) -m venv dist/empty
	dist/empty/bin/pip install -q --no-deps --no-index dist/*.whl
	cd dist && PYTHONPATH=$$($(abspath $(VENV))/bin/python -c "import sysconfig; print(sysconfig.get_path('purelib'))") \
	    PATH=$$PWD/empty/bin:$$PATH && export PYTHONPATH && \
	    python -c "import tl_jacobian as tj; assert '/dist/empty/' in tj.__file__, tj.__file__" && \
	    python -c "from tl_jacobian.render.explore import module, style; module(), style()" && \
	    tl-jacobian --help && tl-jacobian attribute "The capital of France is" --target " Paris" --html paris.html
	rm -rf build build.log dist/empty *.egg-info

benchmark: $(VENV)/.made
	$(VENV)/bin/python -m benchmarks.scope_cost

clean:
	rm -rf $(VENV) $(VENV4) dist demo.html demo.json docs/_build docs/notebooks docs/evidence

$(VENV)/.made: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install -q -c constraints.txt $(TORCH)
	$(VENV)/bin/pip install -q -c constraints.txt "transformer-lens==3.9.0" -e ".[demo,plot,dev,docs,notebook,package]"
	touch $@

$(VENV4)/.made: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV4)
	$(VENV4)/bin/pip install -q -c constraints.txt $(TORCH)
	$(VENV4)/bin/pip install -q -c constraints.txt "transformer-lens==4.3.0" -e ".[demo,plot,dev]"
	touch $@
