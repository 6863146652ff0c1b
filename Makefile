# make             builds libkqueue.so, libkqueue.a and libkqueue.pc into build/
# make demo        builds and runs examples/demo.c on the library
# make check       all tests, loom models among them, then those of the built library on
#                  what make builds
# make bench       costs beside hand-written epoll, as ratios
# make growth      how they grow with what else is there; draws docs/growth.svg
# make soak        what takes too long for make check
# make install     and make uninstall; DESTDIR, PREFIX, LIBDIR, INCLUDEDIR, MANDIR
# make clean       removes build/ and cargo's output

PREFIX = /usr/local
LIBDIR = $(PREFIX)/lib
INCLUDEDIR = $(PREFIX)/include
MANDIR = $(PREFIX)/share/man
PKGCONFIGDIR = $(LIBDIR)/pkgconfig
BUILD = build

CARGO = cargo
LD = ld
OBJCOPY = objcopy
INSTALL = install
CFLAGS = -O2 -g -Wall -Wextra
export CARGO_TARGET_DIR ?= target
CARGO_HOME ?= $(HOME)/.cargo
# Panics and debug information name sources, but not the place where they lay.
REMAP = --remap-path-prefix=$(CURDIR)=libkqueue --remap-path-prefix=$(CARGO_HOME)/registry/src=crates

VERSION := $(shell sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
# The SONAME names the ABI; the file behind it carries the release as well.
SONAME = libkqueue.so.0
SOFILE = $(SONAME).$(basename $(VERSION))
EXPORTS = kqueue kevent kqueue1 kqueuex libkqueue_drain_pending_close
SOURCES := $(shell find src -name '*.rs') Cargo.toml build.rs
HEADERDIR = $(INCLUDEDIR)/kqueue
MAN2 = man/kqueue.2 man/kevent.2

# $${prefix} where it can stand, so that a moved tree needs one variable changed.
PC = sed -e 's|@PREFIX@|$(PREFIX)|' -e 's|@VERSION@|$(VERSION)|' \
	-e 's|@LIBDIR@|$(patsubst $(PREFIX)/%,$${prefix}/%,$(LIBDIR))|' \
	-e 's|@INCLUDEDIR@|$(patsubst $(PREFIX)/%,$${prefix}/%,$(INCLUDEDIR))|' libkqueue.pc.in

.PHONY: all demo check bench growth soak install uninstall clean
.DELETE_ON_ERROR:

all: $(BUILD)/libkqueue.so $(BUILD)/libkqueue.a $(BUILD)/libkqueue.pc

# One run makes both; with an rlib among the crate types cargo would drop LTO.
$(BUILD)/cargo.stamp: $(SOURCES)
	@mkdir -p $(BUILD)
	RUSTFLAGS="$(strip $(RUSTFLAGS) $(REMAP))" $(CARGO) rustc --release --lib --crate-type cdylib,staticlib
	@touch $@

$(BUILD)/libkqueue.so: $(BUILD)/cargo.stamp
	cp $(CARGO_TARGET_DIR)/release/libkqueue.so $@.new
	mv $@.new $@
	ln -sf libkqueue.so $(BUILD)/$(SONAME)

# One object with our names only, or two Rust archives in a program would collide. The
# personality's reference must stay global: the linker keeps one of all archives' copies.
$(BUILD)/libkqueue.a: $(BUILD)/cargo.stamp
	$(LD) -r $(EXPORTS:%=-u %) $(CARGO_TARGET_DIR)/release/libkqueue.a -o $(BUILD)/kqueue.o
	$(OBJCOPY) --strip-debug --remove-section=.llvmbc --remove-section=.llvmcmd \
		$(EXPORTS:%=--keep-global-symbol=%) \
		--keep-global-symbol=DW.ref.rust_eh_personality $(BUILD)/kqueue.o
	rm -f $@
	$(AR) rcs $@ $(BUILD)/kqueue.o
	rm -f $(BUILD)/kqueue.o

$(BUILD)/libkqueue.pc: libkqueue.pc.in Cargo.toml
	@mkdir -p $(BUILD)
	$(PC) > $@

$(BUILD)/demo: examples/demo.c include/sys/event.h $(BUILD)/libkqueue.so
	$(CC) $(CFLAGS) -Iinclude examples/demo.c -o $@ -L$(BUILD) -lkqueue -pthread \
		-Wl,-rpath,'$$ORIGIN'

demo: $(BUILD)/demo
	$(BUILD)/demo

# Both runs happen whatever the first one finds.
check: all
	@status=0; \
	$(CARGO) test --no-fail-fast || status=1; \
	echo "make check: the same on $(BUILD)/"; \
	KQUEUE_LIB_DIR=$(abspath $(BUILD)) $(CARGO) test --no-fail-fast \
		--test abi --test install --test instructions --test ctests || status=1; \
	if [ $$status = 0 ]; then echo "make check: passed"; else echo "make check: FAILED"; fi; \
	exit $$status

bench:
	$(CARGO) bench

growth:
	$(CARGO) bench --bench ratios -- --growth docs/growth.svg

soak: all
	BUILD=$(abspath $(BUILD)) soak/run.sh

# Builds nothing, so that root runs no compiler: make first.
install:
	@test -e $(BUILD)/libkqueue.so -a -e $(BUILD)/libkqueue.a || \
		{ echo "nothing to install in $(BUILD)/: run make first" >&2; exit 1; }
	$(INSTALL) -d $(DESTDIR)$(LIBDIR) $(DESTDIR)$(PKGCONFIGDIR) $(DESTDIR)$(HEADERDIR)/sys $(DESTDIR)$(MANDIR)/man2
	$(INSTALL) -m 755 $(BUILD)/libkqueue.so $(DESTDIR)$(LIBDIR)/$(SOFILE)
	ln -sf $(SOFILE) $(DESTDIR)$(LIBDIR)/$(SONAME)
	ln -sf $(SONAME) $(DESTDIR)$(LIBDIR)/libkqueue.so
	$(INSTALL) -m 644 $(BUILD)/libkqueue.a $(DESTDIR)$(LIBDIR)/libkqueue.a
	$(INSTALL) -m 644 include/sys/event.h $(DESTDIR)$(HEADERDIR)/sys/event.h
	$(INSTALL) -m 644 $(MAN2) $(DESTDIR)$(MANDIR)/man2
	$(PC) > $(DESTDIR)$(PKGCONFIGDIR)/libkqueue.pc
	chmod 644 $(DESTDIR)$(PKGCONFIGDIR)/libkqueue.pc

uninstall:
	rm -f $(DESTDIR)$(LIBDIR)/$(SOFILE) $(DESTDIR)$(LIBDIR)/$(SONAME) \
		$(DESTDIR)$(LIBDIR)/libkqueue.so $(DESTDIR)$(LIBDIR)/libkqueue.a \
		$(DESTDIR)$(PKGCONFIGDIR)/libkqueue.pc $(DESTDIR)$(HEADERDIR)/sys/event.h \
		$(MAN2:man/%=$(DESTDIR)$(MANDIR)/man2/%)
	-rmdir $(DESTDIR)$(HEADERDIR)/sys $(DESTDIR)$(HEADERDIR) 2>/dev/null || true

clean:
	rm -rf $(BUILD)
	$(CARGO) clean
