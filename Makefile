# Needs git, make and Python 3.11 or newer; `make test PYTHON=python3.13` uses another one, in a virtual environment of its own.
PYTHON ?= python3
PYTEST_ARGS ?=
# Three at a time, as services are mostly waited for.
PYTEST := -m pytest -n 3
LOCK_ARGS ?=
BENCH_ARGS ?=

VERSION := $(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)
RUN := .venv
DEV := .venv-dev/$(VERSION)
BENCH := .venv-bench/$(VERSION)
DOCS := .venv-docs/$(VERSION)
AUDIT := .venv-audit/$(VERSION)
LOCK := .venv-lock
UV_VERSION := 0.13.9

BUILDER ?= podman
RELEASE = $(shell sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)
IMAGE ?= localhost/exchange-pipeline:$(RELEASE)
IMAGE_ARGS ?=
SOURCE ?= unknown

AUTOBAHN := .venv-autobahn
PYTHON2 ?= python2.7

.PHONY: demo test collected test-quick bench autobahn manifests image test-image test-kube docs sbom licences check lint typecheck format lock python clean help

help:
	@echo 'make demo        start the pipeline on simulated venues; needs no keys and no Kafka'
	@echo 'make test        lint, type check and all tests, with a real Kafka broker and schema registry'
	@echo 'make test-quick  all tests but those with real services'
	@echo 'make bench       what a message costs, beside other connectors (BENCH_ARGS=--help; best with PYTHON=python3.13)'
	@echo 'make manifests   judge k8s/, alerts, dashboard and Containerfile'
	@echo 'make image       build the image (BUILDER=docker for another builder than podman)'
	@echo 'make test-image  build the image on a base of its own and run it as Kubernetes would; root, Debian, minutes'
	@echo 'make test-kube   apply k8s/ to a real Kubernetes API server; needs Go, and minutes to build it once'
	@echo 'make docs        build the documentation site into build/docs'
	@echo 'make sbom        write the bill of materials, build/sbom.cdx.json (CycloneDX), from the lock'
	@echo 'make licences    fail for a dependency whose licence pyproject.toml does not allow'
	@echo 'make autobahn    run the WebSocket reader against the Autobahn test suite (needs PYTHON2=a Python 2.7)'
	@echo 'make check       lint and type check'
	@echo 'make format      format the code, mend what the linter can mend'
	@echo 'make lock        write the lock files again (LOCK_ARGS=--upgrade for newer versions)'
	@echo 'make clean       remove the virtual environments and the tools'"'"' caches'

demo: $(RUN)/installed-$(VERSION)
	$(RUN)/bin/python -m pipeline demo

# Tests start some hundred Python processes, each of which would compile the program anew where this is set.
test test-quick collected manifests: export PYTHONDONTWRITEBYTECODE :=

test: $(DEV)/installed-$(VERSION)
	@$(MAKE) --no-print-directory -j 3 lint typecheck collected
	$(DEV)/bin/python $(PYTEST) $(PYTEST_ARGS)

# Compiles the tests once instead of in each of pytest's processes; what fails here is told by the run.
collected: $(DEV)/installed-$(VERSION)
	@$(DEV)/bin/python -m pytest --collect-only -qq >/dev/null 2>&1 || true

test-quick: $(DEV)/installed-$(VERSION)
	$(DEV)/bin/python $(PYTEST) -m 'not services' $(PYTEST_ARGS)

bench: $(BENCH)/installed-$(VERSION)
	$(BENCH)/bin/python -m pipeline bench $(BENCH_ARGS)

manifests: $(DEV)/installed-$(VERSION)
	$(DEV)/bin/python -m pytest tests/k8s $(PYTEST_ARGS)

test-image: $(DEV)/installed-$(VERSION)
	$(DEV)/bin/python -m pytest tests/k8s -m image $(PYTEST_ARGS)

test-kube: $(DEV)/installed-$(VERSION)
	$(DEV)/bin/python -m pytest tests/k8s -m kube $(PYTEST_ARGS)

image:
	$(BUILDER) build -f Containerfile -t $(IMAGE) --build-arg VERSION=$(RELEASE) \
		--build-arg REVISION=$$(git rev-parse HEAD) --build-arg SOURCE=$(SOURCE) $(IMAGE_ARGS) .

docs: $(DOCS)/installed-$(VERSION)
	$(DOCS)/bin/python -m sphinx --fail-on-warning --keep-going --quiet -b html -d build/doctrees docs build/docs
	@echo 'build/docs/index.html'

sbom: $(AUDIT)/installed-$(VERSION)
	mkdir -p build
	$(AUDIT)/bin/python -W ignore -m cyclonedx_py requirements requirements.lock --pyproject pyproject.toml --output-reproducible \
		--output-file build/sbom.cdx.json
	@echo 'build/sbom.cdx.json'

licences: $(AUDIT)/installed-$(VERSION) $(RUN)/installed-$(VERSION)
	$(AUDIT)/bin/pip-licenses --python $(RUN)/bin/python

check: lint typecheck

lint: $(DEV)/installed-$(VERSION)
	$(DEV)/bin/ruff check
	$(DEV)/bin/ruff format --check

typecheck: $(DEV)/installed-$(VERSION)
	$(DEV)/bin/mypy

format: $(DEV)/installed-$(VERSION)
	$(DEV)/bin/ruff check --fix
	$(DEV)/bin/ruff format

# Its package runs on Python 2.7 only, in which it serves; our client is tested.
autobahn: $(DEV)/installed-$(VERSION) $(AUTOBAHN)/installed
	$(DEV)/bin/python -m tests.autobahn --suite $(AUTOBAHN) --python2 $(PYTHON2)

$(AUTOBAHN)/installed:
	rm -rf $(AUTOBAHN)
	$(PYTHON2) -m pip install --quiet --disable-pip-version-check --target $(AUTOBAHN) autobahntestsuite==0.8.2
	touch $@

# The locks hold digests and no address, so that they install from any index.
lock: $(LOCK)/installed-$(VERSION)
	$(LOCK)/bin/uv pip compile pyproject.toml --universal --python-version 3.11 --generate-hashes \
		--no-header --no-annotate --quiet $(LOCK_ARGS) --output-file requirements.lock
	$(LOCK)/bin/uv pip compile pyproject.toml --group dev --constraint requirements.lock --universal --python-version 3.11 \
		--generate-hashes --no-header --no-annotate --quiet $(LOCK_ARGS) --output-file requirements-dev.lock
	$(LOCK)/bin/uv pip compile pyproject.toml --group dev --group bench --constraint requirements-dev.lock --universal \
		--python-version 3.11 --generate-hashes --no-header --no-annotate --quiet $(LOCK_ARGS) --output-file requirements-bench.lock
	for group in docs audit; do \
		$(LOCK)/bin/uv pip compile --group $$group --universal --python-version 3.11 --generate-hashes \
			--no-header --no-annotate --quiet $(LOCK_ARGS) --output-file requirements-$$group.lock || exit 1; done
	$(LOCK)/bin/uv pip compile tests/services/tools.in --universal --python-version 3.11 --generate-hashes \
		--no-header --no-annotate --quiet $(LOCK_ARGS) --output-file tests/services/tools.lock

clean:
	rm -rf $(RUN) .venv-dev .venv-bench .venv-docs .venv-audit $(AUTOBAHN) $(LOCK) .mypy_cache .pytest_cache .ruff_cache .hypothesis

# A virtual environment from a lock. The stamp is the last thing written: an interrupted installation starts afresh.
define environment
$(1)/installed-$$(VERSION): $(2) | python
	$$(PYTHON) -m venv --clear $(1)
	$(1)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r $(2)
	touch $$@
endef

$(eval $(call environment,$(RUN),requirements.lock))
$(eval $(call environment,$(DEV),requirements-dev.lock))
$(eval $(call environment,$(BENCH),requirements-bench.lock))
$(eval $(call environment,$(DOCS),requirements-docs.lock))
$(eval $(call environment,$(AUDIT),requirements-audit.lock))

$(LOCK)/installed-$(VERSION): Makefile | python
	$(PYTHON) -m venv --clear $(LOCK)
	$(LOCK)/bin/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
	touch $@

python:
	@test -n '$(VERSION)' || { echo '$(PYTHON) does not run: name a Python 3.11 or newer, as in make PYTHON=python3.13'; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo '$(PYTHON) is Python $(VERSION): 3.11 or newer is needed, as in make PYTHON=python3.13'; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null \
		|| { echo '$(PYTHON) has no venv module: install it (Debian, Ubuntu: the package python$(VERSION)-venv)'; exit 1; }
