# Every target sets up what it needs in .venv; `make` alone tells what there is.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet --require-hashes --no-deps

# Most of what the whole suite does is wait: three workers keep two cores busy.
WORKERS := 3

.DEFAULT_GOAL := help
.PHONY: help demo run test quick world check fix pages lock fuzz dist sbom clean

help:  ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 10

demo: .venv/run  ## watch jobs on a built-in simulator; Ctrl-C ends it
	@exec $(BIN)/python -m watcher demo

run: .venv/run  ## run the daemon with CONFIG=file
	@exec $(BIN)/python -m watcher run --config $(CONFIG)

test: .venv/dev  ## run all tests, with coverage; ARGS=… runs some, without its gates
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest $(if $(ARGS),$(ARGS),-n $(WORKERS) -m "not alone" --durations=25)
	$(if $(ARGS),,$(BIN)/python -m pytest -m alone)
	$(BIN)/coverage combine --quiet
	$(if $(ARGS),,$(BIN)/coverage report --fail-under=95)
	$(if $(ARGS),,$(BIN)/coverage report --fail-under=100 --include='watcher/core/*')

quick: .venv/dev  ## run the tests that start no process, in under a minute
	$(BIN)/python -m pytest -q -n auto $(or $(ARGS),tests/core tests/daemon tests/doors tests/polling tests/simulator)

world: .venv/dev  ## let worlds run for 90 s, HOURS=… watched hours, or repeat one: SEED=…
	@$(BIN)/python -m tests.world $(SEED) $(ARGS) $(if $(HOURS),--quiet --hours $(HOURS),--seconds 90)

check: .venv/dev  ## lint, types, import contracts: all of them, then fail
	@failed=; for tool in "ruff format --check ." "ruff check ." mypy lint-imports; do \
	  echo "$$tool"; $(BIN)/$$tool || failed="$$failed, $${tool% .}"; done; \
	test -z "$$failed" || { echo "failed: $${failed#, }"; exit 1; }

fix: .venv/dev  ## format, and mend what can be mended
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

pages: .venv/dev  ## write the settings into config/watcher.yaml and their reference page
	$(BIN)/python -m watcher.settings.example

lock: .venv/dev  ## pin the newest dependencies that pyproject.toml allows
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip compile $(PIN) --extra basic-auth --extra postgres pyproject.toml -o requirements/run.txt
	$(BIN)/uv pip compile $(PIN) -c requirements/run.txt --group dev pyproject.toml -o requirements/dev.txt
	$(BIN)/uv pip compile $(PIN) requirements/tools.in -o requirements/tools.txt
	$(BIN)/uv pip compile $(PIN) -c requirements/run.txt requirements/bench.in -o requirements/bench.txt
PIN := --quiet --upgrade --universal --python-version 3.11 --generate-hashes --no-header --no-annotate

FUZZED := wire list iam metadata job_file web_config settings
fuzz: .venv/fuzz  ## feed what comes from outside with bytes, each for SECONDS (20), two at once
	printf '%s\n' $(FUZZED) | xargs -P 2 -I NAME sh -c 'echo NAME && finds=$$(mktemp -d) && \
	  exec .venv/fuzz/bin/python -m tests.fuzz.fuzz NAME -verbosity=0 \
	    -max_total_time=$(or $(SECONDS),20) $$finds tests/fuzz/corpus/NAME'

.venv/fuzz: requirements/fuzz.txt requirements/run.txt
	$(PYTHON) -m venv .venv/fuzz
	.venv/fuzz/bin/python -m pip --disable-pip-version-check install --quiet --require-hashes --no-deps -r requirements/run.txt -r requirements/fuzz.txt
	@touch $@

bench: .venv/dev .venv/bench  ## measure against the gates, in a quarter of an hour, into docs/performance.md
	$(BIN)/python -m benchmarks --write

bench-quick: .venv/dev .venv/bench  ## the same in under a minute, with wide margins
	$(BIN)/python -m benchmarks --quick

.venv/bench: requirements/bench.txt
	$(PYTHON) -m venv .venv/bench
	.venv/bench/bin/python -m pip --disable-pip-version-check install --quiet --require-hashes --no-deps -r requirements/bench.txt
	@touch $@

dist: .venv/dev .venv/tools  ## what is released: wheel, sdist, pins, unit, SBOM, checksums
	rm -rf dist
	SOURCE_DATE_EPOCH=$$(git log -1 --format=%ct) $(BIN)/python -m build --no-isolation --outdir dist .
	$(MAKE) --no-print-directory sbom
	cp requirements/run.txt deploy/systemd/devserver-watcher.service dist/
	cd dist && sha256sum * > SHA256SUMS

sbom: .venv/tools  ## list every dependency in dist/devserver-watcher.cdx.json
	mkdir -p dist
	.venv/tools/bin/cyclonedx-py requirements --output-reproducible --of JSON --pyproject pyproject.toml -o dist/devserver-watcher.cdx.json requirements/run.txt

.venv/tools: requirements/tools.txt
	$(PYTHON) -m venv .venv/tools
	.venv/tools/bin/python -m pip --disable-pip-version-check install --quiet --require-hashes --no-deps -r requirements/tools.txt
	@touch $@

clean:  ## remove what the other targets made
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage* htmlcov dist

.venv/run: requirements/run.txt
	@$(PYTHON) -c 'import sys; sys.exit("needs Python 3.11 or newer") if sys.version_info < (3, 11) else 0'
	$(PYTHON) -m venv .venv
	$(PIP) -r requirements/run.txt
	@touch $@

.venv/dev: requirements/dev.txt .venv/run
	$(PIP) -r requirements/dev.txt
	@touch $@
