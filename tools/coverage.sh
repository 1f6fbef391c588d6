#!/usr/bin/env bash
# Measures the line coverage of both languages; the Python tests count for the Rust code too.
#
# The counters are mapped files (%c), so that children that are killed or leave by _exit count as well.
# Reading them takes llvm-profdata and llvm-cov: rustup's component llvm-tools, or a distribution's
# LLVM 19 or later (Debian: llvm-19). Arguments are pytest's.
set -euo pipefail
cd "$(dirname "$0")/.."

folder=$PWD/target/coverage
export CARGO_TARGET_DIR=$folder
export RUSTFLAGS="-C instrument-coverage -C llvm-args=-runtime-counter-relocation"
export CARGO_PROFILE_DEV_DEBUG_ASSERTIONS=false # std would ask the kernel about every descriptor: the tests count calls

find_tool() {
    local found
    for found in "$(rustc --print target-libdir)/../bin/$1" "$(compgen -c "$1-" | sort --unique --version-sort | tail -1)" "$1"; do
        if command -v "$found"; then return; fi
    done
    echo "coverage: $1 not found; install llvm-19 or rustup's llvm-tools" >&2
    return 1
}
profdata=$(find_tool llvm-profdata)
cov=$(find_tool llvm-cov)

rm -rf "$folder/data" "$folder/site" "$folder/wheels"
mkdir -p "$folder/data"
chmod 1777 "$folder/data" # some tests run as an ordinary user

# Build scripts and procedural macros are instrumented too; what they did does not count.
export LLVM_PROFILE_FILE=$folder/build-%m.profraw
cargo test --locked --lib --tests --no-run
binaries=$(cargo test --locked --lib --tests --no-run --message-format=json 2>/dev/null |
    sed -nE 's/.*"executable":"([^"]+)".*/\1/p')
.venv/bin/maturin build --profile dev --locked --quiet --compatibility linux --interpreter .venv/bin/python --out "$folder/wheels"
.venv/bin/python -m pip install --quiet --no-deps --no-index --target "$folder/site" "$folder"/wheels/*.whl
rm -f "$folder"/*.profraw

export LLVM_PROFILE_FILE=$folder/data/%p%c.profraw
failed=0
ATOMIK_FAULTS=all cargo test --locked --lib --tests || failed=1
PYTHONPATH=$folder/site COVERAGE_FILE=$folder/python.data .venv/bin/python -m pytest --cov --cov-report= -m "not slow" "$@" || failed=1

unset LLVM_PROFILE_FILE
"$profdata" merge --sparse --output "$folder/merged.profdata" "$folder"/data/*.profraw
read -ra objects <<<"$(printf -- '--object %s ' "$folder"/site/atomik/*.so $binaries)"
objects=("${objects[@]:1}") # the first one has no option in front
"$cov" show --instr-profile "$folder/merged.profdata" "${objects[@]}" src >"$folder/rust.txt"
"$cov" export --format lcov --instr-profile "$folder/merged.profdata" "${objects[@]}" src >"$folder/rust.lcov"
COVERAGE_FILE=$folder/python.data .venv/bin/coverage json --quiet -o "$folder/python.json"
.venv/bin/python tools/coverage_report.py "$folder/rust.lcov" "$folder/python.json" | tee "$folder/summary.txt"
echo "line by line: target/coverage/rust.txt"
exit $failed
