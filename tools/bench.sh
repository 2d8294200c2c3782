#!/usr/bin/env bash
# The benches: hot paths (criterion), and the operator at scale against a real API server of its own, each figure beside
# its ceiling from the same run. Arguments go to cargo bench: tools/bench.sh --bench plan
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
cd "$ROOT"

"$ROOT/tools/cluster.sh" up --dir "$ROOT/.run/bench" --until-exit-of $$
cargo build --release --locked
TOKENWARD_BENCH_KUBECONFIG=$ROOT/.run/bench/kubeconfig cargo bench --locked --features testkit "$@"
