# make          build/<arch>/dair for this machine: one static binary, nothing installed
# make run      build, and see a cluster answer    make test    all tests of a plain machine
# make lint     style, layers, warnings, analysers  make deps    installs what the above want
# The other targets stand at the end. First build: fetches a pinned compiler into the user's cache.

# Options, here or on the command line:
ARCH  ?= $(shell uname -m)#   x86_64 or aarch64
SAN   ?=#                     address,undefined or thread: with the host's compiler, for tests
V     ?=#                     1 shows every command
T     ?= 60#                  seconds for each fuzzer
ONCE  ?=#                     1: `make run` leaves after the answer
DAIR_TESTDATA ?= ../shared/testdata
PREFIX ?= /usr/local
VERSION ?= 0.1.0
ARM_CPUS   := cortex-a53 cortex-a72 cortex-a76
ARM_TESTS  := $(addprefix tests/test_,kernels attend par cipher key msg plan dns mdns chan coll moe) dair:selftest
SCRIPTS    := $(if $(SAN),,tests/baseline.sh tests/repro.sh) $(wildcard tests/*.t)
SLOW       := tests/repro.sh $(addprefix tests/,boot.t change.t cluster.t equal.t front.t hostile.t kill.t mdns.t share.t slow.t stuck.t sweep.t)#  left out of `make check`
ROUNDS     ?= 300#            kills of `make soak`
JOBS       := $(shell nproc)

# ---- flags: one instruction set for all of the program but the files named here
MACH.x86_64  := -march=x86-64-v2
MACH.aarch64 := -march=armv8-a
FOREIGN.x86_64  := kernels/neon% kernels/dotprod%
FOREIGN.aarch64 := kernels/avx%
FLAGS.kernels/avx2    := -mavx2 -mfma -mf16c
FLAGS.kernels/avx2_q  := -mavx2 -mfma -mf16c
FLAGS.kernels/avx2_attend := -mavx2 -mfma -mf16c
FLAGS.kernels/avxvnni := -mavx2 -mfma -mf16c -mavxvnni
FLAGS.kernels/avx512  := -mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx512vnni -mfma -mf16c
FLAGS.kernels/avx512_one := $(FLAGS.kernels/avx512)
FLAGS.kernels/avx512_float := $(FLAGS.kernels/avx512)
FLAGS.kernels/avx512_attend := $(FLAGS.kernels/avx512)
FLAGS.kernels/dotprod := -march=armv8.2-a+dotprod
FLAGS.src/base/par     = $(OMP.$c)
# Counts every allocation, the C library's own included.
LINK.tests/test_nomalloc := -Wl,--wrap=malloc,--wrap=calloc,--wrap=realloc
LINK.tests/test_chan_nomalloc := $(LINK.tests/test_nomalloc)
# Counts what a gather asks of the kernel.
LINK.tests/test_coll := -Wl,--wrap=send,--wrap=poll,--wrap=sched_yield
# Makes reads slow.
LINK.tests/test_ahead := -Wl,--wrap=pread
LINK.tests/fuzz_chan := -Wl,--wrap=mbedtls_ecp_mul,--wrap=mbedtls_ecp_mul_restartable
LINK.tests/fuzz_coll := $(addprefix -Xlinker --wrap=chan_,close limit measure fd events stats send flush frame take)

WARN := -Wall -Wextra -Wpedantic -Wshadow -Wundef -Wvla -Wformat=2 -Wpointer-arith -Wstrict-prototypes \
        -Wmissing-prototypes -Wcast-qual -Wconversion -Wno-sign-conversion
CODE := -std=gnu17 -D_GNU_SOURCE -DDAIR_VERSION='"$(VERSION)"' -Isrc -Ikernels \
        -fno-math-errno -fno-trapping-math -ffp-contract=off
# The product: paths of this machine are mapped away, so that two checkouts give the same bytes.
CROSS = -fno-pie -ffunction-sections -fdata-sections \
        -ffile-prefix-map=$(CURDIR)=. -ffile-prefix-map=$(TC)=/tc -ffile-prefix-map=$(LIBS)=/libs
LINK := -fno-pie -no-pie -Wl,--gc-sections -Wl,--build-id=none -Wl,-z,stack-size=2097152

# ---- the kit: where the cache keeps compiler, libraries and emulator (image/toolchain)
KIT  := image/toolchain
PART := $(shell sh $(KIT)/get.sh path tc libs qemu boot)
TC   := $(word 1,$(PART))
LIBS := $(word 2,$(PART))
QEMU := $(word 3,$(PART))
BOOT := $(word 4,$(PART))
export SOURCE_DATE_EPOCH := $(or $(shell git log -1 --format=%ct 2>/dev/null),1700000000)
export LC_ALL := C

# ---- configurations: a folder of build/ each, with its compiler, flags and libraries
BOTH := x86_64 aarch64
LIB  := mbedtls boringssl microhttpd utf8proc yyjson
comma := ,
C := $(if $(SAN),san-$(subst $(comma),-,$(SAN)),$(ARCH))
ASAN   := san-address-undefined
HOSTED := fuzz $(sort $(ASAN) $(if $(SAN),$C))
CONFIGS := $(BOTH) $(BOTH:%=lint-%) $(HOSTED)
$(foreach a,$(BOTH),$(foreach c,$a lint-$a,$(eval CPU.$c := $a)))
$(foreach c,$(HOSTED),$(eval CPU.$c := $(shell uname -m)))
$(foreach c,$(BOTH) $(BOTH:%=lint-%),$(eval CC.$c := $(TC)/bin/$(CPU.$c)-linux-musl-gcc)\
  $(eval CFLAGS.$c = $(CROSS))$(eval OMP.$c := -fopenmp)$(eval LINK.$c := $(LINK) -fopenmp)\
  $(eval EXT.$c := $(LIB:%=$(LIBS)/$(CPU.$c)/lib%.a)))
$(foreach c,$(BOTH:%=lint-%),$(eval CFLAGS.$c += -Werror))
$(foreach c,$(HOSTED),$(eval EXT.$c := $(LIB:%=build/$c/ext/%.a))$(eval NEED.$c := need-host))
CC.fuzz     := clang
CFLAGS.fuzz  = $(if $(filter kernels/%,$s),,-fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=undefined)
LINK.fuzz   := -fsanitize=fuzzer,address,undefined
NEED.fuzz   := need-fuzz
# san-A-B: what SAN=A,B builds; `make test` runs the first of them beside the product.
sanitize = $(subst -,$(comma),$(1:san-%=%))
$(foreach c,$(filter san-%,$(HOSTED)),$(eval CC.$c := gcc)\
  $(eval CFLAGS.$c := -fsanitize=$$(call sanitize,$c) -fno-sanitize-recover=all -fno-omit-frame-pointer)\
  $(eval LINK.$c := -fsanitize=$$(call sanitize,$c)))

# ---- what there is
SRC   := $(sort $(wildcard src/*.c src/*/*.c kernels/*.c))
TESTS := $(basename $(sort $(wildcard tests/test_*.c)))
FUZZ  := $(basename $(sort $(wildcard tests/fuzz_*.c)))
BENCH := $(basename $(sort $(wildcard tests/bench_*.c)))
GOLD  := $(basename $(sort $(wildcard tests/golden_*.c)))
LABS  := $(basename $(sort $(wildcard tests/lab_*.c)))
PROGS := $(TESTS) $(FUZZ) $(BENCH) $(GOLD) $(LABS)
DEMO  := $(wildcard overlay/usr/share/dair/demo.gguf)
mine   = $(filter-out $(FOREIGN.$(CPU.$1)),$2)
objects = $(patsubst %.c,build/$1/%.o,$(call mine,$1,$(filter-out src/main.c,$(SRC))))

# In a recipe or a second expansion: the configuration and the source stem of build/<c>/<s>.<x>
c = $(firstword $(subst /, ,$*))
s = $(*:$c/%=%)
ours = $(filter build/%,$(EXT.$c))
say = $(if $(V),,@printf '  %-6s %s\n' $1 $@;)
# Kernels with sanitizers are minutes of work for the compiler, and more when it follows variables; clang
# is not done in ten, so that fuzzers, which no kernel reads for, have them without.
with = $(MACH.$(CPU.$c)) $(if $(filter kernels/%,$s),$(if $(filter san-%,$c),-O1 -g1,-O3 -g),-O2 -g -fstack-protector-strong) $(CODE) $(WARN) $(CFLAGS.$c) \
       -isystem $(LIBS)/include

all-flags = $(CC.$c) $(with) $(LINK.$c) $(EXT.$c) $(foreach v,$(sort $(filter FLAGS.%,$(.VARIABLES))),$v=$($v))

MAKEFLAGS := $(MAKEFLAGS) --no-builtin-rules $(if $(filter -j%,$(MAKEFLAGS)),,-j$(JOBS))
.SECONDEXPANSION:
.SECONDARY:
.DELETE_ON_ERROR:
.PHONY: default all deps run test check soak golden lint format bench mca fuzz clean install repin FORCE
default: build/$C/dair
all: $(BOTH:%=build/%/dair)

$(TC)/ok: ; @sh $(KIT)/deps.sh build && sh $(KIT)/get.sh make tc >/dev/null
$(LIBS)/ok: $(TC)/ok ; @sh $(KIT)/get.sh make libs >/dev/null
$(QEMU)/ok: | $(LIBS)/ok ; @sh $(KIT)/deps.sh build && sh $(KIT)/get.sh make qemu >/dev/null
$(BOOT)/ok: | $(LIBS)/ok ; @sh $(KIT)/deps.sh build && sh $(KIT)/get.sh make boot >/dev/null
need-%: ; @sh $(KIT)/deps.sh $*

# Rewritten only when it changes: all objects hang on it, so new flags or a new compiler rebuild.
build/%/flags: FORCE
	$(shell mkdir -p $(@D))$(file >$@.new,$(all-flags))@cmp -s $@.new $@ || cp $@.new $@
build/%.o: $$s.c build/$$c/flags | $(LIBS)/ok $$(NEED.$$c)
	@mkdir -p $(@D)
	$(call say,CC)$(CC.$c) $(with) $(FLAGS.$s) -MMD -MP -c -o $@ $<
$(foreach c,$(HOSTED),$(LIB:%=build/$c/ext/%.a)): build/%.a: build/$$c/flags | $(LIBS)/ok $$(NEED.$$c)
	@mkdir -p $(@D)
	$(call say,LIB)t=$*.$$$$.a && sh $(KIT)/libs.sh --host $(LIBS) $(*F) $(CC.$c) '-O1 -g $(CFLAGS.$c)' build/$$t && mv build/$$t $@
build/%/libdair.a: $$(call objects,$$*)
	$(call say,AR)rm -f $@ && $(TC)/bin/$(CPU.$c)-linux-musl-ar rcsD $@ $^
build/%/dair.elf: build/%/src/main.o build/%/libdair.a $$(ours)
	$(call say,LINK)$(CC.$c) $(LINK.$c) -Wl,-Map=$(@D)/dair.map -o $@ $(filter %.o %.a,$(filter-out $(ours),$^)) $(EXT.$c) -lpthread -lm

# The demo model rides along as a section that is not loaded, on a page boundary of the file.
build/%/dair: build/%/dair.elf $(DEMO) $(KIT)/finish.sh
	$(call say,STRIP)sh $(KIT)/finish.sh $(TC)/bin/$(CPU.$c)-linux-musl- $< $@ $(if $(filter san-%,$c),keep,strip) $(DEMO)

$(foreach c,$(CONFIGS),$(PROGS:%=build/$c/%)): build/%: build/%.o build/$$c/libdair.a $$(ours)
	$(call say,LINK)$(CC.$c) $(LINK.$c) $(LINK.$s) -o $@ $(filter %.o %.a,$(filter-out $(ours),$^)) $(EXT.$c) -lpthread -lm

# ---- running and testing
deps: ; @sh $(KIT)/deps.sh build test boot lint host fuzz
run: build/$C/dair
	@$(if $(ONCE),ONCE=$(ONCE)) perl image/demo/run.pl $<

ARM   := $(if $(SAN),,$(foreach t,$(filter $(TESTS) dair:%,$(ARM_TESTS)),$(ARM_CPUS:%=build/aarch64/$t@%)))
UNITS := $(TESTS:%=build/$C/%)
# Hostile input once more where every wrong byte is seen; --wrap and the sanitizers' malloc do not mix.
CHECKED := $(if $(SAN),,$(filter-out %nomalloc,$(TESTS:%=build/$(ASAN)/%)))
prove  = @DAIR_BIN=$(CURDIR)/build/$C/dair DAIR_ASAN=$(CURDIR)/build/$(ASAN)/dair DAIR_BUILD=$(CURDIR)/build/$C DAIR_ARCH=$(CPU.$C) QEMU=$(QEMU)/qemu-aarch64 TC=$(TC) \
         DAIR_BOOT=$(BOOT) DAIR_TESTDATA=$(DAIR_TESTDATA) perl tests/prove.pl -j $(JOBS)
test: $(if $(SAN),,all build/$(ASAN)/dair) build/$C/dair $(UNITS) $(CHECKED) $(filter $(TESTS:%=build/aarch64/%),$(subst @, ,$(ARM))) $(LABS:%=build/$C/%) $(QEMU)/ok $(BOOT)/ok need-test need-boot $(if $(CI),need-interop)
	$(prove) $(UNITS) $(SCRIPTS) $(CHECKED) $(ARM)
check: $(if $(SAN),,all) build/$C/dair $(UNITS) $(LABS:%=build/$C/%) need-test
	$(prove) $(UNITS) $(filter-out $(SLOW),$(SCRIPTS))
soak: build/$C/dair need-test
	$(subst -j $(JOBS),-j 1,$(subst perl tests,TEST_TIMEOUT=14400 ROUNDS=$(ROUNDS) V=1 perl tests,$(prove))) tests/kill.t
golden: build/$C/dair $(GOLD:%=build/$C/%) need-test
	@DAIR_BIN=$(CURDIR)/build/$C/dair DAIR_BUILD=$(CURDIR)/build/$C perl tests/golden.pl $(DAIR_TESTDATA)
bench: build/$C/dair $(BENCH:%=build/$C/%)
	@DAIR_BIN=$(CURDIR)/build/$C/dair DAIR_BUILD=$(CURDIR)/build/$C perl tests/bench.pl
# What llvm-mca predicts for the loops of the ARM kernels, beside the bounds of the boards.
mca: build/aarch64/kernels/neon_q.o build/aarch64/kernels/dotprod.o need-mca
	@perl tests/mca.pl $(TC)/bin/aarch64-linux-musl-objdump $(filter %.o,$^)
fuzz: $(FUZZ:%=build/fuzz/%)
	@bad=0; for f in $(FUZZ:tests/fuzz_%=%); do sh tests/fuzz.sh build/fuzz/tests/fuzz_$$f tests/corpus/$$f $(T) || bad=1; done; exit $$bad

# ---- lint: gcc (with OpenMP) and clang (without: the other half of par.c), warnings as errors,
# for both machines; then the analysers. Casts are gcc's: clang blames us for those in musl's macros.
FORMAT := $(sort $(wildcard $(foreach d,src src/* kernels tests,$d/*.[ch] $d/*.inc)))
LINTED := $(SRC) $(PROGS:%=%.c)
CLANG   = --target=$(CPU.$c)-linux-musl -nostdlibinc -isystem $(TC)/sys/$(CPU.$c)/include $(MACH.$(CPU.$c)) \
          $(CODE) -isystem $(LIBS)/include $(WARN) -Wno-cast-qual -Werror $(filter-out -fopenmp,$(FLAGS.$s))
stamps  = $(foreach a,$1,$(patsubst %.c,build/lint-$a/%.$2,$(call mine,$a,$(LINTED))))
lint: $(call stamps,$(BOTH),o) $(call stamps,$(BOTH),clang) $(call stamps,x86_64,tidy) build/lint-all
build/%.clang: $$s.c build/$$c/flags | $(LIBS)/ok need-lint
	@mkdir -p $(@D)
	$(call say,CLANG)clang $(CLANG) -MMD -MP -MF $@.d -MT $@ -fsyntax-only $< && touch $@
build/%.tidy: build/%.clang .clang-tidy
	$(call say,TIDY)clang-tidy --quiet $s.c -- $(CLANG) >$@.log 2>&1 && touch $@ || { cat $@.log; exit 1; }
build/lint-all: FORCE | need-lint
	@sh tests/layers.sh
	@clang-format --dry-run -Werror $(FORMAT)
	@echo '  CPPCHECK'; mkdir -p build/cppcheck && cppcheck --quiet -j $(JOBS) --cppcheck-build-dir=build/cppcheck --std=c11 --inline-suppr \
	  --enable=warning,performance,portability --error-exitcode=1 --suppress=missingIncludeSystem \
	  -D__x86_64__ -D_GNU_SOURCE -Isrc -Ikernels src kernels

format: need-lint
	clang-format -i $(FORMAT)

# ---- the rest
UNIT := overlay/usr/lib/systemd/system/dair.service
# As root, whose home has no compiler: nothing is built here, nor anything of root's left in build/.
install:
	@test -x build/$C/dair || { echo 'there is no build/$C/dair to install: run make first, as yourself' >&2; exit 1; }
	install -D -m 755 build/$C/dair $(DESTDIR)$(PREFIX)/bin/dair
	install -d $(DESTDIR)/etc/systemd/system
	sed 's,/usr/local,$(PREFIX),' $(UNIT) >$(DESTDIR)/etc/systemd/system/dair.service
	chmod 644 $(DESTDIR)/etc/systemd/system/dair.service
repin: ; @sh $(KIT)/repin.sh
clean: ; rm -rf build
-include $(shell find build -name '*.d' 2>/dev/null)
