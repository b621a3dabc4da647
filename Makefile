# plainfilm: `make run` shows it at work, `make test` proves it; see README.md.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
PYTHON ?= python3
VENV := .venv
PY ?= $(VENV)/bin/python
# benchmarks of a device install nothing: the given Python, or the environment's, or else the machine's
DEVICE_PY = $(if $(filter-out $(VENV)/bin/python,$(PY)),$(PY),$(or $(wildcard $(PY)),$(PYTHON)))
INSTALL := $(PY) -m pip install --quiet --disable-pip-version-check -c constraints.txt
AUDIT := $(VENV)/audit-deps
DATA ?=
RIVALS := ffcv dali spdl kornia litdata webdataset
OUT ?= $(if $(DATA),study,demo)

.DEFAULT_GOAL := help
.PHONY: help run test test-extras test-isa check bench bench-smoke bench-compare bench-baseline bench-trust kind audit-quality bench-gpu bench-mps bench-equivalence bench-validation bench-foundation bench-hurdles bench-lungs bench-findings bench-finding-probes bench-masks bench-copies faults audit-deps rivals ffcv-headers ffcv-wheel ci-packages results docs counts clean

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

$(VENV)/base: pyproject.toml setup.cfg constraints.txt loaders/__init__.py
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and f"{sys.executable} is Python {sys.version.split()[0]}, expected 3.11 or newer; run make PYTHON=python3.x")'
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) -e .
	touch $@

$(VENV)/test: $(VENV)/base
	$(INSTALL) -e '.[test]'
	touch $@

$(VENV)/check: $(VENV)/base
	$(INSTALL) -e '.[check]'
	touch $@

$(VENV)/bench: $(VENV)/base
	$(INSTALL) -e '.[bench]'
	touch $@

# FFCV compiles against OpenCV and turbojpeg. Its wheel of OpenCV needs the system's libGL, which libopencv-dev brings.
ffcv-headers:
	@if ! pkg-config --exists opencv4 libturbojpeg 2>/dev/null; then \
	  if command -v apt-get >/dev/null && [ "$$(id -u)" = 0 ]; then \
	    apt-get update -qq && apt-get install -y -qq libopencv-dev libturbojpeg0-dev pkg-config; \
	  else \
	    echo "FFCV needs the headers of OpenCV and turbojpeg: on Debian, sudo apt-get install libopencv-dev libturbojpeg0-dev pkg-config"; exit 1; \
	  fi; \
	fi

# Half a minute of compiling, which .ci/run does beside the main job.
ffcv-wheel: $(VENV)/wheels

$(VENV)/wheels: $(VENV)/base
	@$(MAKE) --no-print-directory ffcv-headers
	$(PY) -m pip wheel --quiet --disable-pip-version-check --no-deps -c constraints.txt --wheel-dir $@ ffcv

$(VENV)/ffcv: $(VENV)/test $(VENV)/wheels
	$(INSTALL) --find-links $(VENV)/wheels -e '.[ffcv]'
	touch $@

$(VENV)/vlm: $(VENV)/base
	$(INSTALL) -e '.[vlm]'
	touch $@

$(VENV)/dali $(VENV)/kornia $(VENV)/litdata $(VENV)/webdataset: $(VENV)/bench
	$(INSTALL) -e '.[$(@F)]'
	touch $@

# SPDL decodes with the system's FFmpeg.
$(VENV)/spdl: $(VENV)/bench
	@if command -v apt-get >/dev/null && [ "$$(id -u)" = 0 ] && ! command -v ffmpeg >/dev/null; then \
	  apt-get update -qq && apt-get install -y -qq --no-install-recommends ffmpeg; \
	fi
	$(INSTALL) -e '.[spdl]'
	touch $@

# What .ci/run needs beside FFCV in one call of pip: it takes five seconds each time to find out that all is there.
ci-packages: $(VENV)/base
	$(INSTALL) -e '.[test,check,bench,kornia,litdata,webdataset]'
	touch $(VENV)/test $(VENV)/check $(VENV)/bench $(VENV)/kornia $(VENV)/litdata $(VENV)/webdataset

# Each by itself: one that cannot be installed leaves its reason to the table, and is tried again the next time.
rivals: $(VENV)/bench
	@mkdir -p $(VENV)/missing
	@for rival in $(RIVALS); do \
	  if $(MAKE) --no-print-directory $(VENV)/$$rival >$(VENV)/missing/$$rival.txt 2>&1; \
	  then rm $(VENV)/missing/$$rival.txt; else echo "$$rival cannot be installed here; the table says why"; fi; \
	done

run: $(VENV)/base  ## the main job on phantoms, or on your own radiographs: make run DATA=folder
ifeq ($(DATA),)
	@test ! -e "$(OUT)" -o -e "$(OUT)/.plainfilm-demo" || { echo "$(OUT) exists and is no demo of plainfilm's, expected a new folder; try make run OUT=folder"; exit 2; }
	@rm -rf "$(OUT)" && mkdir -p "$(OUT)" && touch "$(OUT)/.plainfilm-demo"
	$(PY) cli.py phantom "$(OUT)/phantoms" --patients 480
	$(PY) cli.py convert --manifest "$(OUT)/phantoms/phantoms.csv" --size 96 --holdout 0.15 --out "$(OUT)/betons"
	$(PY) cli.py train "$(OUT)/betons" --out "$(OUT)/run" --epochs 10
else
	@test ! -e "$(OUT)" || { echo "$(OUT) exists, expected a new folder; try make run DATA=$(DATA) OUT=folder"; exit 2; }
	$(PY) cli.py convert $(if $(filter %.csv %.csv.gz %.tsv,$(DATA)),--manifest) "$(DATA)" --holdout 0.15 --out "$(OUT)/betons"
	$(PY) cli.py train "$(OUT)/betons" --out "$(OUT)/run"
endif
	$(PY) cli.py evaluate "$(OUT)/run" "$(OUT)/betons/heldout.beton"
	@printf 'Pictures:\n'; printf '  %s\n' "$(OUT)/betons/preparation.png" "$(OUT)/betons/augmentation.png" "$(OUT)/run/curves.png" "$(OUT)"/run/evaluation/heldout-*/confusion.png
	@printf 'The page of the run, with its verdict:\n  %s\n' "$(OUT)/run/report.html"

# side by side, torch's threads would wait for one another: one each
TEST = OMP_NUM_THREADS=1 $(PY) -m pytest -n auto --dist worksteal

test: $(VENV)/test  ## install what the tests need, and run all but those of test-extras
	$(TEST) -m 'not extras'

test-extras: $(VENV)/ffcv $(VENV)/vlm  ## install FFCV 1.0.2 and transformers; the tests that need them, ONNX, a compiler or a browser, and the campaigns in short
	PLAINFILM_REQUIRE_FFCV=1 $(TEST) -m 'extras or opencv'

test-isa: $(VENV)/test  ## the numerical tests again as older processors would run them: AVX-512, AVX2, plain x86-64
	OMP_NUM_THREADS=1 $(PY) -m tests.processors

check: $(VENV)/check $(VENV)/test  ## lint, types, import rule, docs
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(PY) -m mypy
	$(VENV)/bin/lint-imports
	$(PY) -m pytest -q tests/test_docs.py

bench: rivals  ## measure and store speed beside rivals, as ratios in one run; installs them first
	@mkdir -p benchmarks/results
	$(PY) -m pytest benchmarks --timeout=1200 --benchmark-json="$$($(PY) -m benchmarks.provenance)"

# DALI and SPDL alone may be missing; any other rival that is fails its contest
bench-smoke: $(VENV)/bench $(VENV)/test $(VENV)/ffcv $(VENV)/kornia $(VENV)/litdata $(VENV)/webdataset  ## every contest's agreement check, and one tiny turn of each rival
	$(PY) -m pytest benchmarks --smoke --benchmark-disable --timeout=300 -n auto --dist worksteal

bench-compare: rivals  ## fail when a ratio has fallen below 0.9 of the stored one
	$(PY) -m benchmarks.compare

bench-baseline: rivals  ## store this machine's ratios for bench-compare
	$(PY) -m benchmarks.compare --store

bench-trust: $(VENV)/bench  ## how often bench-compare errs: the same code, and a planted slowdown
	$(PY) -m benchmarks.trust

bench-hurdles: $(VENV)/bench  ## what scores at home are worth on another collection, of phantoms and of patients
	$(PY) -m benchmarks.hurdles

bench-lungs: $(VENV)/bench  ## what lungs alone are worth, and their outline; of patients and of phantoms
	$(PY) -m benchmarks.lungs

bench-findings: $(VENV)/bench  ## what is learnt of phantoms with findings: all known, half unknown, permuted
	$(PY) -m benchmarks.findings

bench-masks: $(VENV)/bench  ## how often masks of lungs are called doubtful, on real films, phantoms and what is no radiograph
	$(PY) -m benchmarks.credible_masks

bench-finding-probes: $(VENV)/bench  ## how often the probes of findings raise an alarm where nothing, or one mark, gives them away
	$(PY) -m benchmarks.finding_probes

bench-copies: $(VENV)/bench  ## how many planted copies are found between two sets, what else is called one, and what a look shows
	$(PY) -m benchmarks.copies

bench-equivalence: $(VENV)/bench  ## whether the engine learns as well as plain PyTorch: best F1, paired over seeds
	$(PY) -m benchmarks.equivalence

bench-validation: $(VENV)/bench  ## which network should validate and be kept: as it trains, recomputed, or averaged
	$(PY) -m benchmarks.validation

bench-foundation: $(VENV)/bench $(VENV)/test $(VENV)/vlm  ## a vision-language model beside the recipe, and whether it looks: MODEL=folder, or a tiny random one
	$(PY) -m benchmarks.foundation $(if $(MODEL),--model "$(MODEL)")

faults: $(VENV)/test  ## attack everything in full, and write the counts into docs/RELIABILITY.md; under an hour
	$(PY) -m tests.faults --document

$(AUDIT)/bin/pip-audit:
	$(PYTHON) -m venv $(AUDIT)
	$(AUDIT)/bin/python -m pip install --quiet --disable-pip-version-check pip-audit==2.10.1

# without --strict, packages that the service does not know would pass; local builds are asked for by their release
audit-deps: $(VENV)/base $(AUDIT)/bin/pip-audit  ## ask PyPI for known vulnerabilities of what is installed
	@$(PY) -m pip list --format freeze --exclude-editable --exclude pip | sed 's/+.*//' >$(AUDIT)/installed.txt
	@$(AUDIT)/bin/pip-audit --strict --no-deps --disable-pip --progress-spinner off -r $(AUDIT)/installed.txt || { \
	  echo "audit-deps: not passed. 'not found on PyPI' or a ConnectionError above: the service gave no answer, and nothing is known; otherwise see the list"; exit 1; }

kind: $(VENV)/bench $(VENV)/test  ## train the audit's classifier of kinds anew, scored with patients left out
	$(PY) -m benchmarks.audit.kind_recipe

# cleanvision by itself: without it the speed part says that it is missing
audit-quality: $(VENV)/bench $(VENV)/test  ## how well the audit works: planted and real defects, shortcuts, formats, speed
	@$(INSTALL) -e '.[cleanvision]' || echo "cleanvision cannot be installed here; the table says missing"
	$(PY) -m benchmarks.audit.quality all --document

bench-gpu:  ## test and measure everything on this machine's CUDA device; PY=python3 names another Python
	$(DEVICE_PY) -m benchmarks.device.gpu

bench-mps:  ## the same on a Mac
	$(DEVICE_PY) -m benchmarks.device.mps

results: $(VENV)/bench  ## write docs/RESULTS.md, its picture and every quoted figure from the stored results; measures nothing
	$(PY) -m benchmarks.document

docs: $(VENV)/base  ## write docs/CLI.md, and the tree of docs/DESIGN.md, from the code
	$(PY) -c 'import cli, pathlib; pathlib.Path("docs/CLI.md").write_text(cli.reference())'
	$(PY) -m tests.house --document

counts: $(VENV)/base  ## count files, lines, import circles and upward arrows, and the files that a PNG and a metric cross
	@$(PY) -m tests.house
	@$(PY) -m tests.paths

clean:  ## remove the environment and the demo
	rm -rf $(VENV)
	test ! -e demo/.plainfilm-demo || rm -rf demo
