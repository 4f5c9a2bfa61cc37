# Every command of README.md in one place; what takes more than a line is in scripts/.
# `build` is incremental: a file in dist/ is made again only when its sources are newer.

version := $(shell sed -n 's/^  "version": "\(.*\)",$$/\1/p' package.json)
arch    := $(if $(filter aarch64 arm64,$(shell uname -m)),arm64,x64)
runtime := node_modules/node-linux-$(arch)
sources := $(shell find src lab -name '*.ts') package.json package-lock.json scripts/bundle
built   := $(addprefix dist/,bin/netctl-cni bin/netctl-oci bin/netctl bin/netctld lib/netctl.node lib/netctld.mjs lib/netctl.cjs lib/node)
# musl-gcc knows no kernel headers: they are looked for last, so that musl's own win.
kernel_headers := -idirafter /usr/include -idirafter /usr/include/$(shell gcc -dumpmachine)
warnings := -std=c11 -Wall -Wextra -Werror -D_GNU_SOURCE

.PHONY: build setup install deb demo lab test test-long check bench bench-cni bench-policy bench-bgp clean
.DELETE_ON_ERROR:

build: $(built)

setup:
	@scripts/setup

dist/bin/netctl-cni: $(wildcard native/shim/*.[ch]) package.json | setup
	@mkdir -p $(@D)
	musl-gcc $(warnings) -Os -static -s -DNETCTL_VERSION='"$(version)"' $(kernel_headers) -o $@ $(filter %.c,$^)

dist/bin/netctl-oci: $(wildcard native/oci/*.[ch]) | setup
	@mkdir -p $(@D)
	musl-gcc $(warnings) -Os -static -s -o $@ $(filter %.c,$^)

# nodelete: threads of it may still run when Node.js unloads it at its end.
dist/lib/netctl.node: $(wildcard native/addon/*.[ch]) package-lock.json | setup
	@mkdir -p $(@D)
	gcc $(warnings) -O2 -fPIC -shared -Wl,-z,nodelete -I $(runtime)/include/node -o $@ $(filter %.c,$^)

dist/lib/netctld.mjs dist/lib/netctl.cjs: $(sources) | setup
	scripts/bundle $@

dist/lib/node: | setup
	@mkdir -p $(@D)
	ln -sfn ../../$(runtime)/bin/node $@

dist/bin/netctl dist/bin/netctld: scripts/launcher
	@install -D -m 755 $< $@

install: build
	scripts/install '$(DESTDIR)'

deb: build
	@scripts/deb

demo: build
	@scripts/sandbox node_modules/.bin/node lab/demo.ts

lab: build
	@scripts/setup etcd-server bird2 iputils-ping
	dist/bin/netctl lab up $(LABFLAGS)

test: build dist/test/packet-io
	@scripts/setup etcd-server etcd-client bird2 iputils-ping openssl curl containernetworking-plugins
	scripts/sandbox node_modules/.bin/node --test --test-concurrency=3 --test-timeout=180000 'test/unit/**/*.test.ts' 'test/kernel/**/*.test.ts'

# What takes minutes or hours, each part alone: make test-long PART=machines
PART := *
test-long: build dist/test/packet-io dist/test/kill-at
	@scripts/setup etcd-server etcd-client bird2 iputils-ping openssl curl containernetworking-plugins
	@scripts/test-long '$(PART)'

dist/test/packet-io: test/kernel/packet-io.c
dist/test/kill-at: test/long/kill-at.c
dist/test/packet-io dist/test/kill-at:
	@mkdir -p $(@D)
	gcc $(warnings) -O2 -o $@ $<

check: setup
	node_modules/.bin/tsc --noEmit -p .
	node_modules/.bin/biome check
	node_modules/.bin/knip
	node_modules/.bin/node --test test/unit/layers.test.ts

dist/bench/%: bench/%.c
	@mkdir -p $(@D)
	gcc $(warnings) -O2 -o $@ $<

bench: bench-cni bench-policy dist/bench/route-limit dist/bench/tcp-cost
	@scripts/sandbox node_modules/.bin/node bench/macvlan.ts
	@scripts/setup etcd-server bird2 iputils-ping
	@scripts/sandbox node_modules/.bin/node bench/ipam.ts
	@scripts/sandbox node_modules/.bin/node bench/bgp.ts

# ADD and DEL, stores on the disk. All parts; PARTS="latency syn" runs some.
bench-cni: build dist/bench/cni-calls dist/bench/cni-limit
	@scripts/setup containernetworking-plugins etcd-server
	@scripts/sandbox env TMPDIR='$(CURDIR)/dist/bench' node_modules/.bin/node bench/cni.ts $(PARTS)

# As small as our plugin: static, on musl.
dist/bench/cni-limit: bench/cni-limit.c
	@mkdir -p $(@D)
	musl-gcc $(warnings) -Os -static -s $(kernel_headers) -o $@ $<

# All parts, each within 4 minutes: traffic changes store sync sync-1000 writers. PARTS="traffic changes" runs some.
bench-policy: build dist/bench/tcp-cost
	@scripts/setup etcd-server etcd-client
	@scripts/sandbox env TMPDIR='$(CURDIR)/dist/bench' node_modules/.bin/node bench/policy.ts $(PARTS)

# Routes between hosts. PARTS="sync ping routes" are those of `make bench`; PARTS=mesh (100 BIRDs) takes minutes, HOSTS=20 less.
bench-bgp: build dist/bench/route-limit
	@scripts/setup etcd-server bird2 iputils-ping
	@scripts/sandbox node_modules/.bin/node bench/bgp.ts $(PARTS)

clean:
	rm -rf dist
