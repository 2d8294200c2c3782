#!/usr/bin/env bash
# Runs the checks, each a phase with its time; stops at the first that fails.
#
#   tools/test.sh             all of them
#   tools/test.sh PHASE…      only these
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
cd "$ROOT"

CARGO_DENY=0.20.2

ALL=(format clippy dependencies scripts unit generated chart examples image fidelity e2e)

phase_format() {
  cargo fmt --all -- --check
  cargo fmt --manifest-path fuzz/Cargo.toml -- --check
}

# Not even --all-targets names e2e, which Cargo.toml leaves out of `cargo test`.
phase_clippy() {
  cargo clippy --locked --all-targets --features testkit -- -D warnings
  cargo clippy --locked --test e2e --features testkit -- -D warnings
}

cargo_deny() {
  cargo_tool cargo-deny "$CARGO_DENY" "about 4 minutes"
  "$BIN_DIR/cargo-deny" --locked "$@"
}

# The advisory database comes from the network, which a build machine may not have.
phase_dependencies() {
  local log
  cargo_deny check --hide-inclusion-graph bans licenses sources
  log=$(mktemp)
  if cargo_deny check advisories >"$log" 2>&1; then
    note "advisories ok"
  elif grep -q 'failed to fetch advisory database' "$log"; then
    note "advisories not checked: the database cannot be fetched from here"
  else
    cat "$log"
    return 1
  fi
  rm -f "$log"
}

phase_scripts() {
  local scripts=(.ci/run tools/*.sh tests/*.sh tests/chart/*.sh) script
  for script in "${scripts[@]}"; do bash -n "$script"; done
  if command -v shellcheck >/dev/null; then
    shellcheck "${scripts[@]}"
  else
    note "only parsed: shellcheck is not installed"
  fi
}

# Unit, property, simulation and fidelity: every test target but e2e, which Cargo.toml leaves out of `cargo test`.
phase_unit() { cargo test --locked --features testkit; }

phase_generated() { tools/generate.sh --check; }

phase_chart() {
  tools/build.sh
  tests/chart.sh
}

phase_examples() { tests/examples.sh; }

phase_image() {
  tools/image.sh
  tests/image.sh
}

# What is tested against a model of the API server offline, against the real one: the definition, the recorded scenarios.
phase_fidelity() {
  local state
  tools/build.sh
  state=$(mktemp -d)
  tools/cluster.sh up --dir "$state" --until-exit-of $$
  TOKENWARD_KUBECONFIG=$state/kubeconfig \
    cargo test --locked --features testkit --test crd --test testkit_scenarios
  tools/cluster.sh down --dir "$state"
  rm -rf "$state"
}

phase_e2e() {
  tools/build.sh
  cargo build --release --locked --bin tokenward
  # The operator is the release binary; what tests it is built as the unit tests are. Cases mostly wait.
  TOKENWARD_BIN=${TOKENWARD_BIN:-$ROOT/target/release/tokenward} \
    cargo test --locked --features testkit --test e2e -- --show-output --test-threads="${E2E_THREADS:-8}"
}

report() {
  ((${#times[@]} > 1)) || return 0
  step "Times"
  printf '  %s\n' "${times[@]}"
}

phases=("$@")
((${#phases[@]})) || phases=("${ALL[@]}")
times=()
began=$SECONDS
for phase in "${phases[@]}"; do
  declare -F "phase_$phase" >/dev/null || die "unknown phase: $phase (known: ${ALL[*]})"
  step "$phase"
  started=$SECONDS
  # In a shell of its own: inside a condition, bash would go on after a failing command.
  set +e
  (
    set -e
    "phase_$phase"
  )
  code=$?
  set -e
  times+=("$(printf '%-14s %4d s' "$phase" $((SECONDS - started)))")
  if ((code)); then
    report
    die "$phase failed"
  fi
done
times+=("$(printf '%-14s %4d s' total $((SECONDS - began)))")
report
