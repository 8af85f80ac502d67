# Recipes for the two things most people come for, and the checks that CI runs.
# `just reproduce table4` needs nothing but a Rust toolchain; nothing has to be installed first.

# Not quiet: the first build takes minutes, and shows how far it is.
runner := "cargo run --release --package runner --"

# List the recipes.
default:
    @just --list

# Run every cell of a table (or of `all`) that has not run yet and write its report, e.g. `just reproduce table4 --seeds 0..2` for three seeds.
reproduce artifact *options:
    {{runner}} reproduce {{artifact}} {{options}}

# Run all tests (one build profile: release).
test:
    cargo test --release --workspace --quiet

# Tests on published data that is not committed: CLIP's vocabulary, COCO's captions, Fashion-MNIST, under `$DMP_DATA` or `../shared/datasets`.
test-published:
    cargo test --release --package runner --package data --package models --package engine --quiet -- --ignored

# Show what `reproduce` would do and why.
plan artifact *options:
    {{runner}} plan {{artifact}} --explain {{options}}

# Feed one of the readers in fuzz/targets with spoiled files, e.g. `just fuzz npz 60`; what breaks it is kept in fuzz/artifacts.
fuzz target seconds="600":
    cargo fuzz --version >/dev/null 2>&1 || cargo install --locked --quiet cargo-fuzz
    mkdir -p fuzz/found/{{target}}
    RUSTC_BOOTSTRAP=1 cargo fuzz run --sanitizer none {{target}} fuzz/found/{{target}} fuzz/corpus/{{target}} -- \
      -max_total_time={{seconds}} -timeout=10 -rss_limit_mb=2048 -max_len=65536

# Formatting and lints, warnings are errors.
lint:
    cargo fmt --all --check
    cargo clippy --release --workspace --all-targets --quiet -- --deny warnings

# Every table and figure at a scale that takes seconds, in a results tree of its own.
smoke:
    {{runner}} reproduce all --scale smoke --results target/smoke/results --reports target/smoke/reports

# Run the CUDA kernels and their schedule on the CPU, compiled by g++, against the CPU engine, and stages on them against
# the same on the CPU. `runner` is named so that all that was built for `just test` is used again.
check-kernels:
    cargo test --release --package runner --package gpu --features gpu/emulate --test emulated --quiet
    cargo test --release --package runner --package engine --features engine/emulate --lib --quiet -- on_gpu
    cargo clippy --release --package runner --package gpu --package engine --features engine/emulate --all-targets --quiet -- --deny warnings

# Compile what is CUDA, with or without a GPU: `just check-cuda kernels` in a minute, all of it in 10 (CI does not).
check-cuda *what:
    .ci/check-cuda {{what}}

# Write the JSON schemas of the manifests anew; fails in CI if they were stale.
schema:
    {{runner}} schema --write

# The first session with a GPU, step by step: `just gpu` lists them (docs/cuda.md).
gpu *what:
    .ci/gpu {{what}}

# Ours beside PyTorch on the same shapes, in one run (half an hour): prints ratios and writes bench/RESULTS.md.
bench-peers *options:
    cargo build --release --quiet --package runner
    python3 -m venv target/peers
    target/peers/bin/pip install --quiet --disable-pip-version-check --requirement bench/peers/requirements.txt
    target/peers/bin/python -B bench/peers/check.py
    target/peers/bin/python -B bench/peers/compare.py {{options}}

# The distance of the Caltech-101 faces beside pytorch-fid's, e.g. `just peers-fid ../shared/datasets/faces-caltech101/faces.tar`.
peers-fid archive: _exchange
    cargo build --release --quiet --package runner
    target/fid/venv/bin/python -B bench/peers/fid.py {{archive}}

# Patches of ours in the authors' class, from a clone of their repository: writes what it computes, which a test holds ours against.
peers-patch repository: _exchange
    mkdir -p target/released
    RELEASED={{justfile_directory()}}/target/released cargo test --release --package runner --package patches --test released -- --ignored
    target/fid/venv/bin/python -B bench/peers/patch.py {{repository}} target/released crates/patches/tests/released.safetensors

# What those two need of Python.
_exchange:
    python3 -m venv target/fid/venv
    target/fid/venv/bin/pip install --quiet --disable-pip-version-check --requirement bench/peers/requirements-exchange.txt
