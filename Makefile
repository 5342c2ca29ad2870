# `make` builds the program, `make demo` makes a video, `make test` tests; each brings what it needs. `make help`
# lists the rest. docs/setup.md says what the variables choose.
PRESET        ?= release
PYTHON        ?= python3
TORCH_VERSION ?= 2.13.0
TORCH_INDEX   ?=
TORCH_DIR     ?=
PREPROCESS    ?= on
JOBS          ?= $(shell nproc)
DEMO_PROMPT   ?= a red circle moving right on a beige background
DRIVING       ?=
PUPPET        ?= examples/puppet.png

BUILD := $(if $(filter release,$(PRESET)),build,build-$(PRESET))
VENV  := $(if $(filter cuda,$(PRESET)),.venv-cuda,.venv)
export PYTHON VENV TORCH_VERSION TORCH_INDEX
export ZT_TORCH_DIR := $(if $(TORCH_DIR),$(abspath $(TORCH_DIR)),$(CURDIR)/$(VENV)/torch)

.PHONY: all setup configure tests demo demo-animate verify-real test test-slow test-isa bench format tidy dist cuda-check clean help
.DEFAULT_GOAL := all

all: configure  ## build the program: build/zoetrope
	@cmake --build $(BUILD) -j $(JOBS) --target zoetrope

setup:  ## install what is missing: packages (apt), LibTorch and OpenVINO (pip)
	@tools/setup.sh packages
	@$(if $(TORCH_DIR),,tools/setup.sh torch)
	@$(if $(filter off,$(PREPROCESS)),,VENV=.venv tools/setup.sh preprocess)

configure: setup
	@cmake --preset $(PRESET) >/dev/null

tests: configure
	@VENV=.venv tools/setup.sh checks
	@cmake --build $(BUILD) -j $(JOBS)

PYTHON ?= python3
verify-real: all  ## compare MODEL=FOLDER with Diffusers, which PYTHON has
	$(BUILD)/zoetrope verify "$(MODEL)" --python "$(PYTHON)"

demo: all  ## make a video from DEMO_PROMPT with the embedded model: outputs/demo.mp4
	@mkdir -p outputs
	$(BUILD)/zoetrope generate --prompt "$(DEMO_PROMPT)" --seed 4 --output-path outputs/demo.mp4
	@echo "The video is $(CURDIR)/outputs/demo.mp4"

demo-animate: all  ## move PUPPET as the person in DRIVING moves, with the embedded model: outputs/demo-animate.mp4
	@$(if $(DRIVING),,VENV=.venv tools/setup.sh clip)
	@mkdir -p outputs
	$(BUILD)/zoetrope generate --task animate --video "$(or $(DRIVING),.venv/clip/dance.webp)" --image "$(PUPPET)" \
	    --seed 4 --output-path outputs/demo-animate.mp4
	@$(BUILD)/zoetrope sheet "$(or $(DRIVING),.venv/clip/dance.webp)" outputs/demo-animate.mp4 --output-path outputs/demo-animate.png
	@echo "The video is $(CURDIR)/outputs/demo-animate.mp4, frames of both are in outputs/demo-animate.png"

test: tests  ## build everything, run the fast tests and the checks
	@ctest --preset $(PRESET) -L '^fast$$'

test-slow: tests  ## the tests that take longer
	@ctest --preset $(PRESET) -L '^slow$$'

test-isa: tests  ## the kernels' tests once per instruction set of this CPU
	@ctest --preset $(PRESET) -L '^isa$$'

bench: all  ## measure one transformer layer on this machine
	$(BUILD)/zoetrope bench model --num-frames 17

format:  ## format the C++ sources (clang-format)
	@command -v clang-format >/dev/null || { echo "apt-get install clang-format"; exit 1; }
	@git ls-files -co --exclude-standard '*.h' '*.cpp' | xargs clang-format -i

tidy:  ## clang-tidy over all sources
	@command -v run-clang-tidy >/dev/null || { echo "apt-get install clang-tidy"; exit 1; }
	@$(MAKE) --no-print-directory PRESET=tidy configure
	@run-clang-tidy -quiet -p build-tidy -j $(JOBS) '$(CURDIR)/(src|tests)/'

dist: all  ## an archive with the program, LibTorch, the embedded models and the docs
	@cmake --build $(BUILD) --target package

cuda-check:  ## build against a CUDA wheel (several GB, no toolkit, no GPU) and start the program
	@$(MAKE) --no-print-directory PRESET=cuda TORCH_VERSION=2.14.1 all
	build-cuda/zoetrope --version

clean:  ## remove the build folders; keeps .venv and outputs
	rm -rf build build-dev build-asan build-tsan build-tidy build-cuda

help:  ## this list
	@sed -nE 's/^([a-z-]+):.*  ## (.*)/\1\t\2/p' Makefile | expand -t 14
