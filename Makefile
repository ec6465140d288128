# kprune. `make` is the gate before every commit; `make demo` shows what it does; `make test` is CI.

OUT ?= out/micro
PYTHON ?= python3
APT_PACKAGES := $(shell sed -E '/^(\#|$$)/d; s/[[:space:]].*//' prune/apt-packages.txt)
MISSING = $(shell for p in $(APT_PACKAGES); do \
	dpkg-query -W -f='$${db:Status-Status}' $$p 2>/dev/null | grep -qx installed || echo $$p; done)
APT_INSTALL = apt-get install --yes --no-install-recommends

.PHONY: check setup apt demo test test-slow test-kernels fuzz holdout soak bench bench-heal bench-sources clean

check: setup
	.venv/bin/ruff format --check .
	.venv/bin/ruff check .
	.venv/bin/mypy
	.venv/bin/lint-imports
	.venv/bin/python -m pytest -q tests/unit tests/toy tests/fuzz

setup: apt .venv/installed
	@.venv/bin/python -m compileall -q prune tracer  # as pip does with what it installs

# As root, what is missing is installed; otherwise the one command that does it is printed.
apt:
	@missing="$(MISSING)"; if [ -n "$$missing" ]; then \
		if [ "$$(id -u)" = 0 ]; then \
			apt-get update && DEBIAN_FRONTEND=noninteractive $(APT_INSTALL) $$missing; \
		else \
			echo "kprune: Debian packages are missing; install them with" >&2; \
			echo "    sudo $(APT_INSTALL) $$missing" >&2; exit 3; \
		fi; fi

.venv/installed: pyproject.toml | apt
	$(PYTHON) -m venv .venv
	.venv/bin/pip install --quiet --disable-pip-version-check \
		--config-settings editable_mode=compat -e '.[dev]'
	@touch $@

demo: setup
	.venv/bin/kprune run examples/micro --out $(OUT)

test: setup
	.venv/bin/python -m pytest

# What `make test` leaves out, for each of them builds a kernel of its own.
test-slow: setup
	.venv/bin/python -m pytest -m slow

# examples/micro on every kernel series, compiler and architecture: hours the first time. KERNELS: some of it only,
# as in KERNELS="--compilers clang" (python -m tests.kernels --help). The table is on standard output.
KERNELS ?=

test-kernels: setup
	@.venv/bin/python -m tests.kernels $(KERNELS)

# FUZZ_SECONDS: in all, shared out among the targets; FUZZ: some of them only (python -m tests.fuzz --help).
# Another seed each time; what fails is in out/fuzz, and said with the command that repeats it.
FUZZ_SECONDS ?= 3600
FUZZ ?=

fuzz: setup
	nice .venv/bin/python -m tests.fuzz --seconds $(FUZZ_SECONDS) $(FUZZ)

# BENCH: of tiny, micro, defconfig; BENCH_LTO: which of them by clang with LTO, too ("micro defconfig" takes
# hours of building the first time).
BENCH ?= tiny micro defconfig
BENCH_LTO ?= $(filter micro,$(BENCH))

# Programs that no example profiles, on the demo's kernel pruned ever wider: what becomes of each. PROGRAMS: another list.
PROGRAMS ?= examples/holdout/programs.toml

holdout: demo
	.venv/bin/kprune holdout $(OUT) --programs $(PROGRAMS) --keep callees --keep reachable

# Each server example under load and trouble, SOAK_MINUTES each; `kprune run` makes its kernel first.
SOAK_MINUTES ?= 60
SOAK ?= nginx redis sqlite

soak: setup
	for each in $(SOAK); do \
		.venv/bin/kprune run examples/$$each --out out/$$each || exit; \
		.venv/bin/kprune soak out/$$each --minutes $(SOAK_MINUTES) --rehearse 4 || exit; \
	done

bench: setup
	.venv/bin/python -m prune.bench --kernels "$(BENCH)" --lto "$(BENCH_LTO)" --demo $(OUT) $(BENCH_FLAGS)

bench-heal: setup
	.venv/bin/python -m prune.bench.heal examples/micro out/bench-heal

bench-sources: setup
	.venv/bin/python -m prune.bench.sources examples/micro out/bench-sources

clean:
	rm -rf out build .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
