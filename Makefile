# Needs cargo, g++, make and python3-pip; everything else it sets up itself, in this folder, cargo's own folders and the
# user's cache (libtorch, shared by all checkouts).

unexport CARGO_TARGET_DIR # The binary lies in target/.

HOST := target/release/dbp-host

# tools/libtorch.py links a LIBTORCH of your own; .cargo/config.toml alone tells the build where that is.
.PHONY: help setup build demo test check reference bench bench-peers clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

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

DATA := ../shared/data# Folders of photographs, named in benches/README.md.

bench-peers: build .peers/ready ## Time the host against PyTorch and torchvision, which it puts into .peers/ (DATA=DIR has photographs)
	cargo bench --bench peers -- --python .peers/bin/python --data $(DATA) $(ARGS)
	cargo bench --bench loader -- --python .peers/bin/python --data $(DATA)/imagenet_sample $(filter --quick,$(ARGS))

# PyTorch's versions are those of libtorch, so that both sides have the same kernels. Where Python lacks venv, as Debian's does
# without python3-venv, the packages go into a folder of their own.
.peers/ready: benches/peers/requirements.txt
	python3 benches/peers/set_up.py .peers $<

clean: ## Remove build outputs; runs/, .peers/ and the cache stay
	cargo clean
