# What a person does with this repository. GNU make; `make` alone lists it.

PYTHON ?= python3
PREFIX ?= /usr/local
MINUTES ?= 10
DESTDIR ?=
EXTRAS ?=

LIB = $(PREFIX)/lib/pyrelay
# Where it is made: what was installed before goes when this is complete.
NEW = $(DESTDIR)$(LIB).new
SHARE = $(PREFIX)/share
# bash reads no other folder when it starts; ssh's own completion is not to be replaced, only added to. fish looks
# below /usr/local only where XDG_DATA_DIRS says so, as a desktop does and a login by ssh does not.
ETC = $(if $(filter /usr /usr/local,$(PREFIX)),/etc,$(PREFIX)/etc)
# Each file of ours, and the folder below SHARE where it goes; and those that go below ETC.
SHARED = man/pyrelay.1=man/man1 \
	completions/bash/pyrelay=bash-completion/completions \
	completions/zsh/_pyrelay=zsh/site-functions completions/zsh/_pyrelay_ssh=zsh/site-functions \
	completions/fish/pyrelay.fish=fish/vendor_completions.d completions/fish/pyrelay-ssh.fish=fish/vendor_conf.d
CONFIGURED = completions/bash/pyrelay=bash_completion.d \
	completions/fish/pyrelay.fish=fish/completions completions/fish/pyrelay-ssh.fish=fish/conf.d
# What a release is made of: all that there is but what was made here.
RELEASE = $(filter-out build dist %.egg-info,$(wildcard *)) .ci .gitignore
DIST = dist
# Where make matrix keeps its chroot and the logs.
WORK ?= /var/tmp/pyrelay-matrix
PARTS ?= first-hour debian pythons
# The tests of the whole program.
ELSEWHERE = tests/whole tests/dial tests/run tests/share --ignore tests/whole/test_bench.py
VENV = .venv/bin

# Ends there, and says so, where PYTHON is too old.
suitable = $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	{ echo 'pyrelay needs Python 3.11 or later: make PYTHON=python3.11 ...' >&2; exit 1; }

# The tests in two halves, the second one with nothing beside it, and both whatever comes of the first. What failed in
# either is said once more in the end. Three run at once, since a test waits for nearly half of its time. relay is
# compiled first: some machines forbid Python to do it at each start.
halves = @$(VENV)/python -m compileall -q relay; PYRELAY_FAILED=`mktemp`; export PYRELAY_FAILED; \
	$(VENV)/python -m pytest -n 3 --dist loadfile -m "not alone" $(1); first=$$?; \
	$(VENV)/python -m pytest -m alone $(1); second=$$?; \
	cat "$$PYRELAY_FAILED"; rm "$$PYRELAY_FAILED"; test $$first = 0 && test $$second = 0

# The programs that tests talk to, as Debian calls their packages.
PEERS = bash-completion busybox dante-server dropbear-bin fish git iproute2 krb5-admin-server krb5-kdc krb5-user locales mandoc \
	microsocks ncat netcat-openbsd netcat-traditional openssh-client openssh-server openssl procps rsync socat squid \
	strace tcsh tinyproxy tor torsocks zsh
# What one of them is built with, from its source: a dante with GSS-API.
BUILDERS = dpkg-dev gcc libc6-dev libcrypt-dev make
# The programs that run ssh, or are an ssh: docs/recipes.md has a line for each. And what stands before an sshd.
TOOLS = ansible-core borgbackup clustershell fuse3 pdsh putty-tools sshfs
FRONTS = haproxy sslh
# What OpenSSH is built with, from its source.
SOURCES = autoconf automake dpkg-dev gcc libc6-dev libssl-dev make zlib1g-dev

# What has no seeds to begin with (tests/beds/fuzzed_wire.py); + stands for the space in a name.
SEEDLESS = messages clear aes128-gcm@openssh.com chacha20-poly1305@openssh.com aes128-ctr+hmac-sha2-256-etm@openssh.com \
	aes128-ctr+hmac-sha2-512-etm@openssh.com aes128-ctr+hmac-sha2-256 aes256-ctr+hmac-sha2-512

.PHONY: help demo test check bench elsewhere regress soak fuzz nightly matrix install uninstall dist deb lock peers strangers

help: ## list these targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' Makefile

demo: .venv/ready ## run a command through three SSH servers on loopback, and show what each saw
	@tests/install-packages openssh-client openssh-server
	@$(VENV)/python demo/demo.py

test: .venv/ready peers build/dante/sockd build/pq/pqcrypto ## run the tests; what they need is installed first, or named (ARGS for pytest)
ifdef ARGS
	$(VENV)/python -m pytest $(ARGS)
else
	$(halves)
endif

check: .venv/ready ## check format, lint, types and man page
	@tests/install-packages mandoc
	$(VENV)/ruff format --check --quiet
	$(VENV)/ruff check --quiet
	$(VENV)/mypy --no-error-summary
	$(if $(wildcard man/*.1),mandoc -T lint -W warning man/*.1)

bench: .venv/ready peers ## measure it beside ssh and nc, and print the table (ARGS="--only TEXT --json FILE"; OPENSSH=DIR)
	@tests/install-packages valgrind
	@$(VENV)/python -m bench $(if $(OPENSSH),--openssh "$(OPENSSH)") $(ARGS)

elsewhere: export PYRELAY_ELSEWHERE = 1
elsewhere: .venv/ready peers build/dante/sockd build/pq/pqcrypto ## run the tests of the whole program with what only Linux has hidden from it
	$(call halves,$(ELSEWHERE) $(ARGS))

regress: .venv/ready peers ## run OpenSSH's own tests with it in the path, an hour or two; write docs/regress.md (ARGS="--way NAME TEST...")
	@tests/install-packages $(SOURCES)
	@PYTHONPATH=tests/beds $(VENV)/python -m regress $(ARGS)

soak: .venv/ready peers ## run it for two hours with every party stopped and killed (ARGS="--seconds N", ARGS=--beside)
	@$(VENV)/python tests/beds/soak.py $(ARGS)

fuzz: .venv/ready ## give whatever reads any bytes any bytes, ten minutes each (MINUTES=1; ARGS are libFuzzer's options)
	@# Not among what development needs: there are no builds of it for some systems.
	$(VENV)/pip install --quiet --disable-pip-version-check atheris
	@# Ten seconds for one input, and a gigabyte for all, are what a hang and unbounded memory come to.
	@for target in $(SEEDLESS) $(wildcard fuzz/seeds/*); do \
		echo "$$target"; found=`mktemp -d`; \
		$(VENV)/python fuzz/target.py "`echo $$target | tr + ' '`" $$found `ls -d $$target 2>/dev/null` \
			-max_total_time=$$(($(MINUTES) * 60)) -timeout=10 -rss_limit_mb=1024 \
			-artifact_prefix=fuzz/ $(ARGS) || status=$$?; \
		rm -r $$found; \
	done; exit $$status

nightly: .venv/ready peers strangers ## run all that takes too long for CI, write docs/nightly.md (ARGS="--only NAME --soak SECONDS")
	@$(VENV)/python tests/beds/nightly.py $(ARGS)

matrix: ## try it in chroots of Debian 12, 13 and sid and with each Python here, write docs/matrix.md (PARTS; ARGS for pytest)
	@tests/install-packages debootstrap python3-venv
	@build=`mktemp -d /var/tmp/matrix.XXXXXX` && chmod 755 "$$build" && mkdir "$$build/source" && cp -R $(RELEASE) "$$build/source" && \
		packaging/matrix "$$build" "$(WORK)" "$(PARTS)" $(ARGS); \
		status=$$?; rm -rf "$$build"; exit $$status

install: ## install under PREFIX (/usr/local), for a package under DESTDIR (EXTRAS=[pq])
	@$(suitable)
	@# A copy is what pip builds from, so that nothing is left here that belongs to root.
	@build=`mktemp -d` && cp -R LICENSE README.md completions man pyproject.toml relay ssh_pyrelay.py "$$build" && \
		$(PYTHON) -m venv --clear "$(NEW)" && \
		"$(NEW)/bin/python" -m pip install --quiet --no-compile "$$build$(EXTRAS)"; \
		status=$$?; rm -rf "$$build"; test $$status = 0 || rm -rf "$(NEW)"; exit $$status
	@"$(NEW)/bin/python" -B -m pip uninstall --quiet --quiet --yes pip setuptools
	@# What came along names NEW; the one script that is wanted must not.
	@sed '/^command/d' "$(NEW)/pyvenv.cfg" > "$(NEW)/cfg" && mv "$(NEW)/cfg" "$(NEW)/pyvenv.cfg"
	@find "$(NEW)/bin" -type f -exec rm {} +
	@version=`"$(NEW)/bin/python" -c 'import sys; print("python%d.%d" % sys.version_info[:2])'` && \
		sed -e 's|@python@|$(LIB)/bin/python|' -e "s|@path@|['$(LIB)/lib/$$version/site-packages']|" pyrelay.in \
		> "$(NEW)/bin/pyrelay"
	@chmod 755 "$(NEW)/bin/pyrelay"
	@# What pip has compiled itself names NEW, too; share/ goes below PREFIX.
	@find "$(NEW)" -name __pycache__ -prune -exec rm -rf {} +
	@rm -rf "$(NEW)/share"
	@"$(NEW)/bin/python" -m compileall -q -f -s "$(NEW)" -p "$(LIB)" "$(NEW)/lib"
	@rm -rf "$(DESTDIR)$(LIB)" && mv "$(NEW)" "$(DESTDIR)$(LIB)"
	@mkdir -p "$(DESTDIR)$(PREFIX)/bin"
	@ln -sf ../lib/pyrelay/bin/pyrelay "$(DESTDIR)$(PREFIX)/bin/pyrelay"
	@for pair in $(SHARED:%=%:$(SHARE)) $(CONFIGURED:%=%:$(ETC)); do \
		file=$${pair%%=*}; folder=$${pair#*=}; folder="$(DESTDIR)$${folder#*:}/$${folder%%:*}"; \
		mkdir -p "$$folder" && install -m 644 "$$file" "$$folder/" || exit 1; \
	done
	@echo "installed $(DESTDIR)$(PREFIX)/bin/pyrelay, its manual and completions"

uninstall: ## take away what install put there
	rm -rf "$(DESTDIR)$(LIB)"
	rm -f "$(DESTDIR)$(PREFIX)/bin/pyrelay"
	for pair in $(SHARED:%=%:$(SHARE)) $(CONFIGURED:%=%:$(ETC)); do \
		file=$${pair%%=*}; folder=$${pair#*=}; rm -f "$(DESTDIR)$${folder#*:}/$${folder%%:*}/$${file##*/}"; \
	done

dist: .venv/ready ## build sdist and wheel in dist/, and try the wheel in an environment of its own
	@tests/install-packages openssh-client openssh-server
	@build=`mktemp -d` && mkdir "$$build/source" && cp -R $(RELEASE) "$$build/source" && \
		VENV="$(abspath $(VENV))" PYTHON="$(PYTHON)" packaging/dist "$$build" "$(abspath $(DIST))"; \
		status=$$?; rm -rf "$$build"; exit $$status

deb: ## build a Debian package in dist/, for this release of Debian
	@tests/install-packages binutils dpkg-dev lintian python3-venv
	@build=`mktemp -d` && chmod 755 "$$build" && MAKE="$(MAKE)" packaging/deb "$$build" "$(abspath $(DIST))"; \
		status=$$?; rm -rf "$$build"; exit $$status

lock: ## choose anew the versions of what development needs
	@$(suitable)
	rm -rf .venv
	$(PYTHON) -m venv .venv
	$(VENV)/pip install --quiet --upgrade pip
	$(VENV)/pip install --quiet --group dev --editable .
	$(VENV)/pip freeze --all --exclude pip --exclude-editable > requirements-dev.lock

.venv/ready: pyproject.toml requirements-dev.lock
	@$(suitable)
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || tests/install-packages python3-venv
	$(PYTHON) -m venv --clear .venv
	$(VENV)/pip install --quiet --disable-pip-version-check --requirement requirements-dev.lock
	$(VENV)/pip install --quiet --disable-pip-version-check --no-build-isolation --no-deps --editable .
	@touch $@

# (Where that fails it is said, and the tests that need it fail.)
build/dante/sockd: tests/build-dante
	@tests/install-packages $(BUILDERS) libgssapi-krb5-2
	@tests/build-dante build/dante || true

# The extra pq, for the tests that are about it: all others, and the measurements, are without it, as most users are.
# (Where there is no build of it, the tests that need it are skipped, or fail under CI.)
build/pq/pqcrypto: pyproject.toml | .venv/ready
	@$(VENV)/pip install --quiet --disable-pip-version-check --no-deps --upgrade --target build/pq 'pqcrypto>=1,<2' || true
	@test ! -d $@ || touch $@

strangers: ## add the servers that the tests of other makes take where they are: Go's and npm's
	@tests/install-packages golang-go golang-golang-x-crypto-dev
	@command -v npm >/dev/null || tests/install-packages nodejs npm
	@npm install --silent --no-audit --no-fund --ignore-scripts --prefix build/npm ssh2

peers:
	@tests/install-packages $(PEERS) $(TOOLS) $(FRONTS)
