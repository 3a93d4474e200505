# Crafterse image service. `make help` lists the targets.
#
# Non-recursive: every folder's sources are found by wildcard, so a new file needs no entry here.
#   MODE=release (default) | debug | asan | tsan     objects in build/MODE, binaries in build/bin
#                                                    (build/MODE/bin for the other modes)
#   MODE=fault                                       for tests: dies and errs where it is told to
#                                                    (common/base/fault.h)

# What a person types reaches the scripts in the environment, as it is: $(value) keeps make from
# expanding a $ in a prompt, and no shell parses it.
PERSONS := PROMPT NEGATIVE SEED STEPS SIZE MODEL KAFKA OUT
$(foreach v,$(PERSONS),$(if $(filter undefined,$(origin $v)),,$(eval override $v := $$(value $v))))
export $(PERSONS)

MODE ?= release

# For another machine: CROSS_COMPILE is the prefix of its tools, SYSROOT the folder that holds its
# headers and libraries (make arm64 makes one). Objects in build/MODE-PREFIX.
CROSS_COMPILE ?=
SYSROOT ?=
ifeq ($(origin CC),default)
CC := $(CROSS_COMPILE)gcc
endif
TRIPLET := $(CROSS_COMPILE:%-=%)
PKG_CONFIG := $(if $(SYSROOT),PKG_CONFIG_SYSROOT_DIR=$(abspath $(SYSROOT)) \
    PKG_CONFIG_LIBDIR=$(abspath $(SYSROOT))/usr/lib/$(TRIPLET)/pkgconfig) pkg-config
SYSROOT_FLAGS := $(if $(SYSROOT),--sysroot=$(abspath $(SYSROOT)))

O := build/$(MODE)$(TRIPLET:%=-%)
BIN := $(if $(filter build/release,$(O)),build/bin,$(O)/bin)

VERSION := $(shell git describe --always --dirty 2>/dev/null || echo unknown)

# ---- Flags -----------------------------------------------------------------------------------

WARNINGS := -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wdouble-promotion -Wstrict-prototypes \
    -Wmissing-prototypes -Wpointer-arith -Wcast-qual -Wwrite-strings -Wundef -Wvla -Wformat=2 \
    -Wimplicit-fallthrough -Wswitch-enum \
    -Wno-format-truncation
MODE_FLAGS_release := -O3 -g -fno-omit-frame-pointer -D_FORTIFY_SOURCE=2
MODE_FLAGS_debug := -O0 -g -DCRAFTERSE_DEBUG
MODE_FLAGS_asan := -O1 -g -fno-omit-frame-pointer -fsanitize=address,undefined \
    -fno-sanitize-recover=undefined -DCRAFTERSE_DEBUG -DCRAFTERSE_SANITIZE
# For make fuzz, which says CC=clang; its warnings are gcc's business.
MODE_FLAGS_fuzz := -O1 -g -fno-omit-frame-pointer -fsanitize=fuzzer-no-link,address,undefined \
    -fno-sanitize-recover=undefined -DCRAFTERSE_DEBUG -DCRAFTERSE_SANITIZE
# Optimized as the release build, whose engine it takes: faults are the pipeline's business.
MODE_FLAGS_fault := -O2 -g -fno-omit-frame-pointer -DCRAFTERSE_FAULTS
MODE_FLAGS_tsan := -O1 -g -fno-omit-frame-pointer -fsanitize=thread -DCRAFTERSE_SANITIZE

# gcc 12 for arm64 crashes where it vectorises a loop's fmax or fmin of converted values.
ifneq ($(filter aarch64%,$(shell $(CC) -dumpmachine 2>/dev/null)),)
MACHINE_FLAGS := -fno-builtin-fmax -fno-builtin-fmin -fno-builtin-fmaxf -fno-builtin-fminf
endif

PACKAGES := rdkafka hiredis libcurl libpng libcjson libuv openblas libprotobuf-c libmicrohttpd libcrypto libutf8proc yajl
# -isystem keeps our warnings out of other people's headers.
# Asked for once, by the first recipe that compiles: `make help` and `make run` must work on a machine
# that has none of this yet.
PACKAGE_CFLAGS = $(eval PACKAGE_CFLAGS := $(patsubst -I%,-isystem %,$(shell \
    $(PKG_CONFIG) --cflags $(PACKAGES))))$(PACKAGE_CFLAGS)

CFLAGS ?=
# -MD, not -MMD: the headers made from proto/ are system headers to the compiler.
COMMON_FLAGS = -std=c11 -D_GNU_SOURCE $(SYSROOT_FLAGS) $(MODE_FLAGS_$(MODE)) $(MACHINE_FLAGS) \
    $(CFLAGS) -pthread -I. -isystem $(O)/gen $(PACKAGE_CFLAGS) -MD -MP
LINK_FLAGS = $(SYSROOT_FLAGS) $(MODE_FLAGS_$(MODE)) $(LDFLAGS) -pthread -Wl,--as-needed
WERROR ?=
lib = $(shell $(PKG_CONFIG) --libs $(1))

ifeq ($(MODE),fuzz)
WARNINGS := -w
endif

# ---- Sources ---------------------------------------------------------------------------------

PROTO := $(wildcard proto/*.proto)
PROTO_C := $(PROTO:proto/%.proto=$(O)/gen/proto/%.pb-c.c)
PROTO_H := $(PROTO_C:.c=.h)

BASE_SRC := $(wildcard common/base/*.c)
COMMON_SRC := $(filter-out $(BASE_SRC),$(wildcard common/*/*.c))
ENGINE_SRC := $(wildcard worker/engine/*.c worker/engine/*/*.c)
ENGINE_DATA := $(wildcard worker/engine/*/*.S)
service_src = $(filter-out $(1)/main.c,$(wildcard $(1)/*.c))

objects = $(patsubst %.c,$(O)/%.o,$(1))
BASE_LIB := $(O)/libbase.a
COMMON_LIB := $(O)/libcommon.a
ENGINE_LIB := $(if $(filter fault,$(MODE)),$(O:build/fault%=build/release%),$(O))/libengine.a
SERVICE_LIBS := $(O)/libgateway.a $(O)/librouter.a $(O)/libworker.a $(O)/libuploader.a

SERVICES := gateway router worker uploader
TOOLS := txt2img devbroker crafterse-admin
BINARIES := $(addprefix $(BIN)/,$(SERVICES) $(TOOLS))

BASE_LIBS = $(call lib,libcjson libcrypto)
# OpenBLAS is not among them: worker/engine/kernels/blas.c loads it.
ENGINE_LIBS = $(call lib,libpng libcjson libcrypto libutf8proc) -lm
COMMON_LIBS = $(call lib,rdkafka libprotobuf-c libmicrohttpd hiredis libcjson libcrypto libcurl)

# ---- Targets ---------------------------------------------------------------------------------

.DEFAULT_GOAL := help
.PHONY: help all $(SERVICES) $(TOOLS) clean
.SUFFIXES:
.SECONDARY:

help: ## show this list
	@sed -n 's/^\([a-z][a-z0-9-]*\):.*## \(.*\)/\1\t\2/p' Makefile | awk -F'\t' '{printf "  make %-15s %s\n", $$1, $$2}'

all: $(BINARIES) ## build every service and tool into build/bin

$(SERVICES) $(TOOLS): %: $(BIN)/%

$(O)/libbase.a: $(call objects,$(BASE_SRC))
$(O)/libcommon.a: $(call objects,$(COMMON_SRC)) $(PROTO_C:.c=.o)
ifeq ($(MODE),fault)
$(ENGINE_LIB):
	@$(MAKE) --no-print-directory MODE=release $@
else
$(O)/libengine.a: $(call objects,$(ENGINE_SRC)) $(ENGINE_DATA:%.S=$(O)/%.o)
endif
$(O)/libgateway.a: $(call objects,$(call service_src,gateway))
$(O)/librouter.a: $(call objects,$(call service_src,router))
$(O)/libworker.a: $(call objects,$(call service_src,worker))
$(O)/libuploader.a: $(call objects,$(call service_src,uploader))
$(O)/lib%.a:
	@mkdir -p $(@D)
	@rm -f $@
	@$(CROSS_COMPILE)ar rcs $@ $^

$(BIN)/gateway: $(O)/gateway/main.o $(O)/libgateway.a $(COMMON_LIB) $(BASE_LIB)
$(BIN)/gateway: LIBS = $(COMMON_LIBS) $(call lib,libuv yajl) -lm
$(BIN)/router: $(O)/router/main.o $(O)/librouter.a $(COMMON_LIB) $(BASE_LIB)
$(BIN)/router: LIBS = $(COMMON_LIBS)
$(BIN)/worker: $(O)/worker/main.o $(O)/libworker.a $(COMMON_LIB) $(ENGINE_LIB) $(BASE_LIB)
$(BIN)/worker: LIBS = $(COMMON_LIBS) $(ENGINE_LIBS)
$(BIN)/uploader: $(O)/uploader/main.o $(O)/libuploader.a $(COMMON_LIB) $(BASE_LIB)
$(BIN)/uploader: LIBS = $(COMMON_LIBS)
$(BIN)/txt2img: $(patsubst %.c,$(O)/%.o,$(wildcard worker/cli/*.c)) $(ENGINE_LIB) $(BASE_LIB)
$(BIN)/txt2img: LIBS = $(ENGINE_LIBS)
$(BIN)/devbroker: $(O)/deploy/devbroker/devbroker.o $(COMMON_LIB) $(BASE_LIB)
$(BIN)/devbroker: LIBS = $(COMMON_LIBS)

$(BIN)/crafterse-admin: $(call objects,$(wildcard deploy/admin/*.c)) $(COMMON_LIB) $(BASE_LIB)
$(BIN)/crafterse-admin: LIBS = $(COMMON_LIBS)

$(BINARIES):
	@mkdir -p $(@D)
	$(CC) $(LINK_FLAGS) -o $@ $(filter %.o %.a,$^) $(LIBS)

$(O)/%.o: %.c | $(PROTO_H)
	@mkdir -p $(@D)
	@echo "  CC $<"
	@$(CC) $(COMMON_FLAGS) $(WARNINGS) $(WERROR) -DCRAFTERSE_VERSION='"$(VERSION)"' -c $< -o $@

# Files that become part of the binaries; .incbin is not seen by -MD.
$(O)/%.o: %.S
	@mkdir -p $(@D)
	@$(CC) -I. -c $< -o $@
$(O)/worker/engine/tokenizer/clip_merges.o: worker/models/clip/merges.txt

$(O)/gen/%.o: $(O)/gen/%.c
	@$(CC) $(COMMON_FLAGS) -w -c $< -o $@

$(O)/gen/proto/%.pb-c.c $(O)/gen/proto/%.pb-c.h: proto/%.proto
	@mkdir -p $(O)/gen
	@protoc-c --c_out=$(O)/gen proto/$*.proto

# ---- Unit tests: one program per file, linked with everything but the mains ------------------

UNIT_SRC := $(shell find tests/unit tests/golden tests/parity -name 'test_*.c' 2>/dev/null)
UNIT_BIN := $(UNIT_SRC:tests/%.c=$(O)/test/%)

unit-tests: $(UNIT_BIN) ## build the unit, golden and parity tests into build/MODE/test

# Measuring programs, linked the same way: tests/bench/bench_*.c -> build/MODE/test/bench.
# zero_worker is the worker with an engine that takes no time, for benches and tests.
# tests/support/*.c are programs that integration tests run.
BENCH_BIN := $(patsubst tests/%.c,$(O)/test/%,$(wildcard tests/bench/bench_*.c tests/bench/engine/*.c \
    tests/bench/zero_worker.c tests/support/*.c))

.PHONY: bench bench-programs
bench: ## [BENCH=engine|layers|pipeline|throughput|gateway|cache] [BENCH_ROWS=WORD]: measure, write build/bench.json
	@deploy/local/install.sh build kafka test
	@deploy/local/kafka.sh install build/kafka
	@$(MAKE) --no-print-directory -j$(shell nproc) all bench-programs
	@tests/bench/bench.py $(BENCH)

bench-programs: $(BENCH_BIN) ## build the benchmarks into build/MODE/test/bench

# The service libraries come first: a program of the linker reads archives left to right.
$(O)/test/%: $(O)/tests/%.o $(SERVICE_LIBS) $(COMMON_LIB) $(ENGINE_LIB) $(BASE_LIB)
	@mkdir -p $(@D)
	@$(CC) $(LINK_FLAGS) -o $@ $^ $(COMMON_LIBS) $(ENGINE_LIBS) $(call lib,libuv yajl)

# ---- Tests -----------------------------------------------------------------------------------

# The builds are makes of their own: they start when the packages are there. The tests of make run
# take the release build, whatever MODE is.
.PHONY: test
test: ## [MODE=asan]: install what the tests need, build, run every test; ends with "N passed, N failed, ..."
	@deploy/local/install.sh build kafka test
	@deploy/local/kafka.sh install build/kafka
	@$(MAKE) --no-print-directory -j$(shell nproc) MODE=$(MODE) all unit-tests bench-programs
	@$(MAKE) --no-print-directory -j$(shell nproc) MODE=release all
	@$(MAKE) --no-print-directory -j$(shell nproc) MODE=fault fault-programs
	@$(MAKE) --no-print-directory -j$(shell nproc) MODE=fuzz CC=clang fuzz-programs
	@CRAFTERSE_BUILD=$(CURDIR)/$(O) CRAFTERSE_BIN=$(CURDIR)/$(BIN) tests/run

# ---- arm64, built on any machine ---------------------------------------------------------------

ARM64 := CROSS_COMPILE=aarch64-linux-gnu- SYSROOT=build/sysroot-arm64

.PHONY: arm64 test-arm64
arm64: ## cross-build everything for arm64 into build/release-aarch64-linux-gnu
	@deploy/local/install.sh build arm64
	@deploy/local/sysroot.sh arm64 build/sysroot-arm64
	@$(MAKE) --no-print-directory -j$(shell nproc) $(ARM64) all unit-tests

# -R: QEMU remembers each address that was ever reserved, so the arenas' must be used again.
test-arm64: arm64 ## [WORD=...]: run the unit, golden and parity tests of that build in qemu-user
	@CRAFTERSE_EMULATOR="qemu-aarch64 -R 0x6000000000 -L build/sysroot-arm64" \
	    CRAFTERSE_BUILD=$(CURDIR)/build/release-aarch64-linux-gnu tests/run unit $(WORD)

# ---- Chaos: faults against a cluster (docs/CHAOS.md) ---------------------------------------------

.PHONY: chaos fault-programs
chaos: ## [SEED=1 SEEDS=1 JOBS=100 SCENARIO=1,8|none SOAK=1]: kill, stop and cut everything; nothing may be lost
	@deploy/local/install.sh build kafka test
	@deploy/local/kafka.sh install build/kafka
	@$(MAKE) --no-print-directory -j$(shell nproc) all bench-programs
	@$(MAKE) --no-print-directory -j$(shell nproc) MODE=fault fault-programs
	@tests/chaos/chaos.py $(if $(SEED),--seed $(SEED)) $(if $(SEEDS),--seeds $(SEEDS)) \
	    $(if $(JOBS),--jobs $(JOBS)) $(if $(SCENARIO),--scenario $(SCENARIO)) $(if $(SOAK),--soak)

# The services with the faults of common/base/fault.h. Say MODE=fault.
fault-programs: $(addprefix $(BIN)/,$(SERVICES)) $(O)/test/bench/zero_worker

# ---- Fuzzing: one program per tests/fuzz/fuzz_NAME.c, started from tests/fuzz/corpus/NAME ---------

FUZZERS := $(patsubst tests/fuzz/fuzz_%.c,%,$(wildcard tests/fuzz/fuzz_*.c))
FUZZ_SECONDS ?= 20

.PHONY: fuzz fuzz-programs $(FUZZERS:%=fuzz-%)
fuzz: ## [FUZZ_SECONDS=20]: fuzz each parser that long (needs clang)
	@deploy/local/install.sh build test
	@$(MAKE) --no-print-directory -j$(shell nproc) MODE=fuzz CC=clang fuzz-programs
	@$(MAKE) --no-print-directory -k -j$(shell nproc) MODE=fuzz $(FUZZERS:%=fuzz-%)

fuzz-programs: $(FUZZERS:%=$(O)/fuzz/%)

$(O)/fuzz/%: $(O)/tests/fuzz/fuzz_%.o $(SERVICE_LIBS) $(COMMON_LIB) $(ENGINE_LIB) $(BASE_LIB)
	@mkdir -p $(@D)
	@$(CC) $(LINK_FLAGS) -fsanitize=fuzzer -o $@ $^ $(COMMON_LIBS) $(ENGINE_LIBS) $(call lib,libuv yajl)

$(FUZZERS:%=fuzz-%): fuzz-%:
	@tests/fuzz/run.sh $(O)/fuzz/$* $(FUZZ_SECONDS)

# ---- Golden fixtures: made with other people's code, committed, compared with by tests/golden -----

# GOLDEN_PYTHON=/path/to/python uses an environment that is already there.
GOLDEN_PYTHON ?=

.PHONY: golden
golden: $(if $(GOLDEN_PYTHON),,build/golden/ready) ## make tests/golden's fixtures anew (downloads torch)
	HF_HUB_OFFLINE=1 $(or $(GOLDEN_PYTHON),build/golden/bin/python) tests/golden/make_golden.py

build/golden/ready: tests/golden/requirements.txt
	python3 -m venv build/golden
	build/golden/bin/pip install --quiet -r $<
	@touch $@

# ---- Parity: every kind of model with every sampler and control, against diffusers ----------------

.PHONY: parity parity-fixtures parity-full
parity: ## [WORD=sdxl]: the list of docs/PARITY.md, a line a case; ends with "N passed, N failed"
	@deploy/local/install.sh build
	@$(MAKE) --no-print-directory -j$(shell nproc) $(O)/test/parity/test_parity
	@$(O)/test/parity/test_parity --list $(WORD)

parity-fixtures: $(if $(GOLDEN_PYTHON),,build/golden/ready) ## [KIND=sdxl]: make the list's fixtures anew (downloads torch)
	HF_HUB_OFFLINE=1 $(or $(GOLDEN_PYTHON),build/golden/bin/python) tests/parity/make_fixtures.py $(KIND)

parity-full: $(if $(GOLDEN_PYTHON),,build/golden/ready) $(BIN)/txt2img ## [KIND=sd15]: full shapes (downloads torch; 9 GB of disk, 12 GB of memory)
	HF_HUB_OFFLINE=1 $(or $(GOLDEN_PYTHON),build/golden/bin/python) tests/parity/full.py all $(or $(KIND),sd15 sdxl)

# ---- One machine -----------------------------------------------------------------------------

.PHONY: run up down status
run: ## PROMPT="..." [NEGATIVE= SEED= STEPS= SIZE=WxH MODEL=FILE|DIR KAFKA=apache OUT=]: make a picture
	@+MAKE=$(MAKE) deploy/local/run.sh
up: ## [MODEL= KAFKA=apache]: start the services and keep them; prints where
	@+MAKE=$(MAKE) deploy/local/stack.sh up
down: ## stop what make up started
	@deploy/local/stack.sh down
status: ## each service of make up, its port, memory, and each queue's lag
	@deploy/local/stack.sh status

# ---- Containers and monitoring ---------------------------------------------------------------

.PHONY: images compose-try alerts-try rights-try
images: ## [CONTAINER_TOOL=podman]: build the container images and hold them to their sizes
	@deploy/containers/images.sh
compose-try: ## [NETWORK=host LOCAL=1]: the whole stack in containers, one picture, and all gone again
	@deploy/compose/try.sh

alerts-try rights-try: try-programs
alerts-try: ## fire every alert on a running stack with a real Prometheus and Alertmanager (12 minutes)
	@tests/deploy/alerts_try.py
rights-try: ## the Kafka users, rights and topics of deploy/k8s on a real broker, one picture, every right
	@tests/deploy/rights_try.py

.PHONY: try-programs
try-programs:
	@deploy/local/install.sh build kafka lint test
	@deploy/local/kafka.sh install build/kafka
	@$(MAKE) --no-print-directory -j$(shell nproc) all bench-programs

# ---- Documents -------------------------------------------------------------------------------

.PHONY: docs diagrams
docs: $(SERVICES) devbroker ## write docs/CONFIGURATION.md from the services' option tables
	@deploy/local/docs.sh
diagrams: ## draw docs/diagrams/*.puml into docs/images (needs PlantUML)
	@deploy/local/install.sh diagrams
	@deploy/local/diagrams.py

# ---- Lint ------------------------------------------------------------------------------------

lint: ## check format, warnings, headers, include rules, banned functions, scripts and docs
	@MAKE=$(MAKE) tests/lint/lint.sh

# What lint.sh builds, with O=build/lint, so that only what changed is checked again.
LINT_SRC := $(BASE_SRC) $(COMMON_SRC) $(ENGINE_SRC) $(foreach s,$(SERVICES),$(wildcard $(s)/*.c)) \
    $(wildcard worker/cli/*.c deploy/*/*.c) $(shell find tests -name '*.c' 2>/dev/null)
LINT_HEADERS := $(shell find common gateway router worker uploader tests -name '*.h' 2>/dev/null)

.PHONY: lint lint-objects lint-headers lint-tidy
lint-objects: $(call objects,$(LINT_SRC))
lint-headers: $(LINT_HEADERS:%=$(O)/%.alone)
lint-tidy: $(LINT_SRC:%.c=$(O)/%.tidy)

$(O)/%.h.alone: %.h | $(PROTO_H)
	@mkdir -p $(@D)
	@$(CC) $(COMMON_FLAGS) $(WARNINGS) -Werror -MF $(O)/$*.h.d -MT $@ -fsyntax-only -x c $< && touch $@

$(O)/%.tidy: $(O)/%.o .clang-tidy tests/.clang-tidy
	@clang-tidy --quiet $*.c -- $(COMMON_FLAGS) -DCRAFTERSE_VERSION='"lint"' 2>/dev/null && touch $@

clean: ## remove build/
	rm -rf build

-include $(shell find $(O) -name '*.d' 2>/dev/null)
