# make grade                 three built-in eyes: table here, report in out/report.html
# make grade PHOTOS=path     a photograph, a folder, or a CSV with a path column
# make serve                 the page and the REST API at http://127.0.0.1:8000, its record in out/retigrade.db
# make test                  the tests, in a few minutes
# make test-slow             those that train networks or need other programs
# make lint                  style, types and layers
# make docs                  the documentation's site in out/site, strictly
# make reproduction          the publication's whole protocol, for days; the same command goes on where it stopped
# Needs Python 3.11 or newer and nothing else; PYTHON names another one than python3.

PYTHON ?= python3
PHOTOS ?= out/demo
export PHOTOS

BIN := .venv/bin
STAMPS := .venv/.stamps
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check

.PHONY: grade serve test test-slow lint docs reproduction

grade: $(STAMPS)/grading
	@if [ "$$PHOTOS" = out/demo ]; then $(BIN)/python -m retigrade.synthetic out/demo; fi
	@$(BIN)/retigrade grade --out out -- "$$PHOTOS"

serve: $(STAMPS)/serve
	@mkdir -p out && exec $(BIN)/retigrade serve --database sqlite:///out/retigrade.db

test: $(STAMPS)/dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n auto --dist worksteal -m "not slow"

test-slow: $(STAMPS)/dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n auto --dist worksteal --durations 12 -m slow

lint: $(STAMPS)/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: $(STAMPS)/dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet

APTOS ?= ../shared/data/aptos2019
STARTS ?= $(wildcard ../shared/weights/*.safetensors)
reproduction: $(STAMPS)/dev
	$(BIN)/retigrade paper "$(APTOS)" --out runs/paper --without-photographs --random-start \
	  $(if $(STARTS),--weights $(STARTS))

$(STAMPS)/grading: pyproject.toml | $(STAMPS)/venv
	@echo "installing retigrade into .venv" >&2
	@$(INSTALL) --editable .
	@touch $@

$(STAMPS)/serve: pyproject.toml | $(STAMPS)/venv
	@echo "installing retigrade with its server into .venv" >&2
	@$(INSTALL) --editable '.[serve]'
	@touch $@ $(STAMPS)/grading

$(STAMPS)/dev: pyproject.toml | $(STAMPS)/venv
	@echo "installing retigrade with all that training and testing need into .venv (some gigabytes)" >&2
	@$(INSTALL) --editable '.[train,dev]'
	@touch $@ $(STAMPS)/grading $(STAMPS)/serve

$(STAMPS)/venv:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Retigrade needs Python 3.11 or newer; name one: make PYTHON=/path/to/python3.11" >&2; exit 2; }
	@$(PYTHON) -m venv .venv >/dev/null 2>&1 || virtualenv --quiet --python "$(PYTHON)" .venv 2>/dev/null || \
	  { echo "$(PYTHON) cannot make a virtual environment; on Debian: apt install python3-venv" >&2; exit 2; }
	@mkdir -p $(STAMPS) && touch $@
