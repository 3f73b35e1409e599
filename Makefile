# Two commands, each enough on a fresh machine with Python >= 3.11, make and a package index:
#   make demo    trains the main job and leaves a picture in outputs/
#   make test    runs the tests (make test-every also asks of every optimizer what one of each kind
#                promises for it, in twice the time)
PYTHON ?= python3
BIN = .venv/bin
export JAX_PLATFORMS ?= cpu
export NO_MKDOCS_2_WARNING = true

.PHONY: demo test test-every lint docs dist bench precision-runs lr-basin lr-basin-full clean

# One stamp per set of extras: installed once, and again when pyproject.toml changes.
.venv/installed-%: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --editable ".[$*]"
	touch $@

demo: .venv/installed-examples
	$(BIN)/python examples/mnist.py --output-dir outputs/demo

test: .venv/installed-test .venv/installed-examples
	$(BIN)/python -m pytest

test-every: export EVERY_OPTIMIZER = 1
test-every: test

lint: .venv/installed-lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python

docs: .venv/installed-docs
	$(BIN)/mkdocs build --strict --quiet

# The sdist and the wheel in dist/, and the wheel tried in an environment with nothing else.
dist: .venv/installed-dist
	$(BIN)/python .ci/dist.py

# What is on the pages about what it costs and what it is good for: measured, drawn, filled in. A
# stopped run goes on where it was. One of them: make bench BENCHES=speed PAGES=performance
BENCHES = memory speed precision collectives running convergence failure_modes
PAGES = performance precision scaling running evidence learning_rate_free

bench: .venv/installed-examples
	for name in $(BENCHES); do $(BIN)/python benchmarks/$$name.py || exit; done
	for page in $(PAGES); do $(BIN)/python docs/make_$$page.py || exit; done

# Does training in fewer bytes end where float32 ends? Ten minutes.
precision-runs: .venv/installed-examples
	$(BIN)/python benchmarks/precision_runs.py

# The clear cases of docs/figures/lr_basin.png again, in minutes; then all of it, in an hour.
lr-basin: .venv/installed-examples
	$(BIN)/python benchmarks/lr_basin.py --short --output-dir outputs/lr_basin

lr-basin-full: .venv/installed-examples
	$(BIN)/python benchmarks/lr_basin.py

clean:
	rm -rf .venv dist site outputs .jax_cache
