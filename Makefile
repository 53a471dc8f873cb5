# onggi. The two commands to know: make demo, make test.
PREFIX ?= /usr/local
DESTDIR ?=
CARGO ?= cargo
HOST := $(shell rustc -vV | sed -n 's/^host: //p')
MUSL := $(subst -gnu,-musl,$(HOST))
# musl where its standard library is installed (`make musl`): glibc's start-up costs more than all that
# `onggi state` does, on machines that trap CPUID. TARGET=... decides otherwise.
TARGET ?= $(if $(wildcard $(shell rustc --print target-libdir --target $(MUSL) 2>/dev/null)),$(MUSL),$(HOST))
RELEASE := target/$(TARGET)/release/onggi
# Where zsh looks; Debian's package has vendor-completions.
ZSH ?= site-functions

.PHONY: all musl demo test check bench sweep mutants conformance install uninstall deb test-package clean test-vm
.PHONY: test-engines test-engines-native test-engines-doc bench-engines

all: $(RELEASE)

# The static release binary.
$(RELEASE): FORCE
	ONGGI_COMMIT=$$(git rev-parse --short HEAD 2>/dev/null) $(CARGO) build --release --locked --target $(TARGET)
FORCE:

# The musl target for the release binary, where rustup can have it.
musl:
	rustup target add $(MUSL)

# Installs what is missing, builds, and drives one container through its life.
demo: all
	hack/demo $(RELEASE)

# Every test that can run on this machine; what cannot is told with the fact that is missing.
test: all
	hack/test $(RELEASE)

# What CI checks besides the tests.
check:
	$(CARGO) fmt --check
	$(CARGO) clippy --locked --all-targets -- -D warnings

# onggi, crun and runc side by side (those that are installed).
bench: all
	hack/run-bench $(RELEASE)

# Fails and kills create at every one of its system calls. SWEEP="--every 10" for a sample.
sweep: all
	$(CARGO) build --locked --profile dev-fast --example sweep
	target/$(HOST)/dev-fast/examples/sweep --runtime $(RELEASE) --mode all $(SWEEP)

# The specification sentence by sentence, onggi beside runc, and OCI's validation suite.
conformance:
	conformance/run

# All integration tests on a systemd machine, which is a virtual one: hours. TESTS="apparmor::" for some.
test-vm: all
	hack/test-vm $(RELEASE) $(TESTS)

# Every block of docs/engines.md with the real engine, in that machine: minutes. SUITE=sid for containerd 2.
test-engines-doc: all
	conformance/engines-doc $(RELEASE)

# docker, containerd with CRI, podman, conmon and buildah on onggi in that machine. ENGINES="podman:systemd" for
# some, SMOKE=1 for what CI runs, which are minutes; see conformance/engines/run.
test-engines: all
	conformance/engines/run $(RELEASE) $(ENGINES)

# What of that can run without a virtual machine: seconds. ENGINES="cri docker:cgroupfs" for others, some of whose
# steps need what is only there.
test-engines-native: all
	conformance/engines/images target/engines
	conformance/engines/native $(RELEASE) ./in-vm $(or $(ENGINES),faults:cgroupfs services:cgroupfs)

# CPU time for the same work of these engines on onggi, runc and crun: on this machine's own processor, because an
# emulated one spends ten times as much on every start of a sealed executable. VM=1 for all the same in the machine.
bench-engines: all
	$(if $(VM),hack/vm run -b $(RELEASE) -t 5400 conformance/engines/bench,conformance/engines/native $(RELEASE) ./bench)

# Takes one protection away at a time and shows that its security tests fail then. MUTANTS="seal label" for some.
mutants:
	hack/mutants/run $(MUTANTS)

# The program, its man pages and the shells' completions. BINARY=path takes one that is built already.
SHARE := $(DESTDIR)$(PREFIX)/share
install: $(if $(BINARY),,all)
	install -D -m 0755 $(or $(BINARY),$(RELEASE)) $(DESTDIR)$(PREFIX)/sbin/onggi
	install -d $(SHARE)/man/man8
	install -m 0644 man/*.8 $(SHARE)/man/man8
	install -D -m 0644 completions/onggi.bash $(SHARE)/bash-completion/completions/onggi
	install -D -m 0644 completions/_onggi $(SHARE)/zsh/$(ZSH)/_onggi
	install -D -m 0644 completions/onggi.fish $(SHARE)/fish/vendor_completions.d/onggi.fish

uninstall:
	rm -f $(DESTDIR)$(PREFIX)/sbin/onggi $(SHARE)/man/man8/onggi.8 $(SHARE)/man/man8/onggi-*.8
	rm -f $(SHARE)/bash-completion/completions/onggi $(SHARE)/zsh/$(ZSH)/_onggi
	rm -f $(SHARE)/fish/vendor_completions.d/onggi.fish

# A Debian package in target/debian.
deb: $(if $(BINARY),,all)
	hack/deb $(or $(BINARY),$(RELEASE))

# Builds the package and uses it: installs it in a Debian tree of its own, runs, removes.
test-package: $(if $(BINARY),,all)
	hack/test-package $(or $(BINARY),$(RELEASE))

clean:
	$(CARGO) clean
