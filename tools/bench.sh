#!/usr/bin/env bash
# The benches: hot paths (criterion), then operator, gate and ledger at scale against a real API server of their own, each figure
# beside its ceiling from the same run or its aim. Arguments go to cargo bench: tools/bench.sh --bench plan. A part of one alone:
# tools/bench.sh --bench gate_scale -- revocation
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
cd "$ROOT"

"$ROOT/tools/cluster.sh" up --dir "$ROOT/.run/bench" --until-exit-of $$
cargo build --release --locked
# cargo bench puts a binary with the testkit in its place: what is shipped is what is measured.
install -m 755 "${CARGO_TARGET_DIR:-$ROOT/target}/release/tokenward" "$ROOT/.run/bench/tokenward"
export TOKENWARD_BIN=$ROOT/.run/bench/tokenward TOKENWARD_BENCH_KUBECONFIG=$ROOT/.run/bench/kubeconfig
cargo bench --locked --features testkit "$@"
