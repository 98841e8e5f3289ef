# Needs cargo, g++, make and python3-pip; everything else it sets up itself, in this folder, cargo's own folders and the
# user's cache (libtorch, shared by all checkouts).

unexport CARGO_TARGET_DIR # The binary lies in target/.

HOST := target/release/dbp-host

# tools/libtorch.py links a LIBTORCH of your own; .cargo/config.toml alone tells the build where that is.
.PHONY: help setup build demo test check reference bench clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-9s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## Put libtorch into the user's cache (CUDA=1 adds the GPU libraries, LIBTORCH=DIR takes your own)
	@python3 tools/libtorch.py

build: setup ## Build target/release/dbp-host
	cargo build --release

demo: build ## Pre-train a small masked autoencoder on generated photographs: minutes on two cores
	$(HOST) scripts/pretrain.rhai

test: setup ## Set up and run all tests
	cargo test --release

check: setup ## Formatting and lints, warnings denied
	cargo fmt --check
	cargo clippy --release --all-targets -- -D warnings

reference: build ## Write docs/reference, the script reference, out of the doc comments
	$(HOST) api docs/reference

bench: setup ## Time decorrelation and the script's loop against their peers, as ratios, and count what metering costs (ARGS=--quick tries it out)
	cargo bench --bench step -- $(ARGS)
	cargo bench --bench sampler -- $(ARGS)
	cargo bench --bench script_loop -- $(ARGS)

clean: ## Remove build outputs; runs/ and the cache stay
	cargo clean
