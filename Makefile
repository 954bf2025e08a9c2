# Tasks for working on tastypy_fast. Works with GNU make 3.81 and later (Linux, macOS).

PYTHON ?= python3
# A quick build. "make build CFLAGS=-O2" builds as "pip install" does; a change of flags compiles everything again.
CFLAGS ?= -O0
export CFLAGS

# The commit that "make instructions" compares with.
BASE ?= HEAD^

VENV := .venv-dev
PY := $(VENV)/bin/python
PIP := $(PY) -m pip --disable-pip-version-check --quiet
# Without the compiled modules, because pip compiles all of them in a temporary folder each time.
EDITABLE := TASTYPY_FAST_PURE=1 $(PIP) install --no-build-isolation --editable
BUILD := setup.py build_ext --inplace

.PHONY: help build test t lint docs bench instructions storm clean

help: ## list these tasks
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo "make t M=wal: the module wal; M=core: a package; M=anything: all tests with that word in their name."
	@echo "              Options for pytest: make t M=wal ARGS='-x -n 0'. Another Python: make build PYTHON=python3.13"

# Each file says which extras the environment has. pyproject.toml names them, so that a change there installs again.
$(VENV)/.made:
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --upgrade 'setuptools>=77' 'cython>=3.1'
	touch $@

$(VENV)/.dev: $(VENV)/.made pyproject.toml
	$(EDITABLE) '.[test,lint]'
	touch $@

$(VENV)/.docs: $(VENV)/.dev
	$(EDITABLE) '.[docs]'
	touch $@

$(VENV)/.bench: $(VENV)/.dev
	$(EDITABLE) '.[bench]'
	touch $@

build: $(VENV)/.dev ## compile what has changed, in place and quickly (makes .venv-dev where it is missing)
	@mkdir -p build && $(PY) $(BUILD) >build/log 2>&1 || { cat build/log; exit 1; }

test: build ## run the whole suite
	$(PY) -m pytest $(ARGS)

# The rule: tests/**/test_M.py, tests/**/test_M_*.py and the examples in tastypy_fast/**/M.py; else the folder tests/M
# or tests/_M; else every test with M in its name. An underscore at the beginning of M does not matter.
t: build ## run the tests of one module after compiling what has changed: make t M=wal
	@test -n "$(M)" || { echo "name a module: make t M=wal" >&2; exit 2; }
	@name=`echo '$(M)' | sed 's/^_//'`; \
	found=`find tests -name "test_$$name.py" -o -name "test_$${name}_*.py" | sort`; \
	test -z "$$found" || found="$$found `find tastypy_fast -name "$$name.py" -o -name "_$$name.py"`"; \
	test -n "$$found" || found=`find tests -type d \( -name "$$name" -o -name "_$$name" \) | sort`; \
	if test -n "$$found"; then echo "tests:" $$found; $(PY) -m pytest -q $(ARGS) $$found; exit; fi; \
	echo "no file tests/**/test_$$name.py and no folder tests/$$name: tests with $$name in their names"; \
	$(PY) -m pytest -q $(ARGS) -k "$$name" tests; code=$$?; \
	if test $$code = 5; then echo "nothing matches M=$(M): no test file, no folder, no name of a test" >&2; fi; exit $$code

lint: build ## run the linters and type checkers
	$(VENV)/bin/ruff check .
	PATH="$(CURDIR)/$(VENV)/bin:$$PATH" cython-lint src_cython
	$(VENV)/bin/mypy
	@if test -d tests/typing; then set -ex; \
	$(VENV)/bin/mypy --strict tests/typing/consumer.py; $(VENV)/bin/pyright --pythonpath $(PY) tests/typing/consumer.py; fi

docs: build $(VENV)/.docs ## build the documentation into docs/_build/html
	$(PY) -m sphinx -W --keep-going -n -b html docs docs/_build/html

# (optimized, because a quick build is several times slower)
bench: $(VENV)/.bench ## compile with optimization and run the benchmarks (ARGS="-n 100000")
	mkdir -p build && CFLAGS= $(PY) $(BUILD) >build/log 2>&1 || { cat build/log; exit 1; }
	$(PY) -m benchmarks $(if $(ARGS),$(ARGS),-n 100000)

instructions: build ## compare the instructions of single operations with the parent commit (BASE=v1.0)
	$(PY) -m benchmarks.instructions --base '$(BASE)' $(ARGS)

storm: build ## run the long tests: thousands of kills, long random histories
	$(PY) -m pytest -m storm $(ARGS)

clean: ## remove what was built (not .venv-dev)
	rm -rf build dist docs/_build *.egg-info
	find tastypy_fast -name '*.so' -exec rm -f {} +
