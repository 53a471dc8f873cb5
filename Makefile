# onggi. The two commands to know: make demo, make test.
PREFIX ?= /usr/local
DESTDIR ?=
CARGO ?= cargo
HOST := $(shell rustc -vV | sed -n 's/^host: //p')
RELEASE := target/$(HOST)/release/onggi

.PHONY: all demo test check bench sweep mutants conformance install clean test-vm

all: $(RELEASE)

# The static release binary.
$(RELEASE): FORCE
	ONGGI_COMMIT=$$(git rev-parse --short HEAD 2>/dev/null) $(CARGO) build --release --locked
FORCE:

# Installs what is missing, builds, and drives one container through its life.
demo: all
	hack/demo $(RELEASE)

# Every test that can run on this machine; what cannot is told with the fact that is missing.
test:
	hack/test

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

# All integration tests on a systemd machine, which is a virtual one: hours. TESTS="apparmor::" for some.
test-vm: all
	hack/test-vm $(RELEASE) $(TESTS)

# Takes one protection away at a time and shows that its security tests fail then. MUTANTS="seal label" for some.
mutants:
	hack/mutants/run $(MUTANTS)

install: all
	install -D -m 0755 $(RELEASE) $(DESTDIR)$(PREFIX)/sbin/onggi
	install -D -m 0644 man/onggi.8 $(DESTDIR)$(PREFIX)/share/man/man8/onggi.8

clean:
	$(CARGO) clean
