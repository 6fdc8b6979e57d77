# Every chore of this repository; `make` alone lists them.
#
# All of it happens in the environment .venv, made on first use. Stamp files in there remember what was installed
# for which pyproject.toml, so a second run starts at once. PYTHON=… chooses the interpreter (3.11 or newer).

VENV ?= .venv
BIN := $(VENV)/bin
PYTHONS := $(or $(PYTHON),python3 python3.14 python3.13 python3.12 python3.11)

# `make test ARGS="-k journal -x"`: more words for pytest.
ARGS ?=

DEMO_READY := $(VENV)/.ready-for-demo
DEV_READY := $(VENV)/.ready-for-development
comma := ,

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: aws-check help demo setup test lint bench explore faults fleet fuzz packages soak wheel clean

help: ## this list
	@echo "thingjobs, the job agent for AWS IoT things. What make can do here:"
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1	\2/p' Makefile | expand -t 18

demo: $(DEMO_READY) ## run five job documents on this machine: no cloud, no account
	@$(BIN)/python examples/demo.py

setup: $(DEV_READY) ## the development environment in .venv, ready for your editor

test: $(DEV_READY) ## all tests; one of them: make test ARGS="-k words_of_its_name"
	@sh tests/install-mosquitto.sh
	@sh tests/install-promtool.sh $(BIN)
	@$(BIN)/python -m pytest -n $$(($$(nproc) + 1)) --dist worksteal $(ARGS)

lint: $(DEV_READY) ## format, lint, types and import rules; changes nothing
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

bench: $(DEV_READY) ## the benchmarks, each beside its floor in the same run
	@sh tests/install-mosquitto.sh
	@$(BIN)/python -m pytest -s -o python_files='bench_*.py' tests/benchmarks $(ARGS)

explore: $(DEV_READY) ## the core: every schedule of up to three faults, and 60,000 random ones; takes hours
	@THINGJOBS_FAULTS=$${THINGJOBS_FAULTS:-3} $(BIN)/python -m pytest -q --timeout 0 -n auto tests/explorer
	@THINGJOBS_SCHEDULES=$${THINGJOBS_SCHEDULES:-60000} $(BIN)/python -m pytest -q tests/integration/test_core_explored.py

faults: $(DEV_READY) ## the real agent killed, cut off and out of room at every step; takes an hour
	@sh tests/install-mosquitto.sh
	@THINGJOBS_KILLS=all THINGJOBS_DISK_FAULTS=all THINGJOBS_ALL_CUTS=1 THINGJOBS_UPGRADES=all $(BIN)/python -m pytest --timeout 0 \
	    -n auto --dist load tests/integration/kills tests/integration/test_journal_bytes.py tests/integration/test_disk.py tests/integration/upgrade tests/acceptance/firmware $(ARGS)

fleet: $(DEV_READY) ## 100,000 simulated devices after an outage, and 500 real connections; half an hour
	@sh tests/install-mosquitto.sh
	@THINGJOBS_FLEET_DEVICES=$${THINGJOBS_FLEET_DEVICES:-100000} THINGJOBS_FLEET_AGENTS=$${THINGJOBS_FLEET_AGENTS:-500} \
	    $(BIN)/python -m pytest -s --timeout 0 tests/fleet $(ARGS)

soak: $(DEV_READY) ## 10,000 jobs and 1,000 lost connections on one agent; THINGJOBS_SOAK_JOBS says how many
	@sh tests/install-mosquitto.sh
	@THINGJOBS_SOAK_JOBS=$${THINGJOBS_SOAK_JOBS:-10000} $(BIN)/python -m pytest -s tests/soak $(ARGS)

fuzz: $(DEV_READY) ## every parser of what others wrote, with what is nearly right; guided where atheris is installed
	@$(BIN)/python -m tests.fuzz.guided $${THINGJOBS_FUZZ_SECONDS:-900} $(ARGS)

packages: $(DEV_READY) ## the Debian packages, and what becomes of them in a fresh Debian 12
	@PYTHON=$(BIN)/python bash .ci/packages

aws-check: $(DEV_READY) ## ask the real AWS, in your account: it asks before it makes anything, and deletes it all
	@$(BIN)/python tests/aws/aws_check.py $(ARGS)

wheel: $(DEV_READY) ## sdist and wheel, into dist/
	@rm -rf dist
	@$(BIN)/python -m build --outdir dist . >$(VENV)/build.log 2>&1 || { cat $(VENV)/build.log; exit 1; }
	@ls dist

clean: ## remove everything that was made here, the environment too
	@rm -rf $(VENV) dist demo-run .coverage .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	@find agent handlers tests examples -name __pycache__ -type d -prune -exec rm -rf {} +

# An interpreter that is new enough and can make an environment; `--clear` because what is left of an environment
# whose interpreter went away is of no use.
$(BIN)/python:
	@found=; bare=; \
	for try in $(PYTHONS); do \
	    "$$try" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || continue; \
	    if "$$try" -c 'import ensurepip, venv' 2>/dev/null; then found=$$try; break; fi; \
	    bare=$${bare:-$$try}; \
	done; \
	if [ -n "$$found" ]; then \
	    "$$found" -m venv --clear $(VENV); \
	elif [ -n "$$bare" ]; then \
	    echo "thingjobs: $$bare cannot make a virtual environment: its ensurepip or venv module is missing." >&2; \
	    echo "On Debian and Ubuntu: apt-get install python3-venv. Then run make again." >&2; exit 1; \
	else \
	    echo "thingjobs: no Python 3.11 or newer among: $(PYTHONS)." >&2; \
	    echo "Install one, or say where it is: make PYTHON=/path/to/python3 ..." >&2; exit 1; \
	fi

# $(call install,EXTRAS,EXTRAS WITHOUT awsiot): this package, editable. What pip says is shown only if it fails.
# awsiot needs awscrt, which has no wheel for some machines (32-bit Arm) and takes a compiler and an hour there:
# on such a machine we go without, and say so; in CI we do not.
define install
	@echo "thingjobs: installing into $(VENV), which takes a minute the first time ..."
	@pip() { $(BIN)/python -m pip --disable-pip-version-check install --only-binary awscrt -e "$$1" >$(VENV)/pip.log 2>&1; }; \
	if pip '.[$(1)]'; then :; \
	elif [ "$$CI" != true ] && grep -q awscrt $(VENV)/pip.log && pip '.$(2)'; then \
	    echo "thingjobs: going on without the transport awsiot: awscrt cannot be installed here. All else is there."; \
	else \
	    cat $(VENV)/pip.log >&2; \
	    echo "thingjobs: cannot install into $(VENV): pip says why above." >&2; exit 1; \
	fi
endef

$(DEMO_READY): pyproject.toml | $(BIN)/python
	$(call install,awsiot,)
	@touch $@

$(DEV_READY): pyproject.toml | $(BIN)/python
	$(call install,awsiot$(comma)test$(comma)dev,[test$(comma)dev])
	@touch $(DEMO_READY) $@
