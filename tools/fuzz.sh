#!/usr/bin/env bash
# Fuzzes what comes from outside: each target of fuzz/ for SOAK_FUZZ_SECONDS, 60 if it is not set.
#
#   tools/fuzz.sh                          all of them
#   tools/fuzz.sh TARGET…                  only these
#   tools/fuzz.sh TARGET… -- ARGUMENT…     with arguments for libFuzzer, such as -max_len=512
#   tools/fuzz.sh TARGET -- FILE…          runs these inputs once
#
# What was learned is kept in fuzz/corpus/, and the next run goes on from there.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
cd "$ROOT"

CARGO_FUZZ=0.13.2
SECONDS_EACH=${SOAK_FUZZ_SECONDS:-60}
LOGS=$ROOT/.run/fuzz

# Without a sanitizer: there is no unsafe code in Tokenward for one to look at, a panic needs none, and this way the
# pinned stable toolchain will do.
cargo_fuzz() {
  local command=$1
  shift
  PATH=$BIN_DIR:$PATH cargo fuzz "$command" --sanitizer none "$@"
}

# figure NAME LOG: one of libFuzzer's final figures.
figure() { sed -n "s/^stat::$1: *//p" "$2" | tail -n 1; }

# coverage LOG: edges that were reached, and inputs that reach them, by the last line that tells.
coverage() { sed -n 's/^#[0-9]*.* cov: \([0-9]*\) .* corp: \([0-9]*\).*/\1 \2/p' "$1" | tail -n 1; }

# found TARGET LOG: says what was found and what to do about it.
found() {
  local artifact
  grep -v '^#[0-9]' "$2" | tail -n 60 >&2
  artifact=$(sed -n 's/.*Test unit written to //p' "$2" | tail -n 1)
  [[ -n $artifact ]] || die "$1 failed; its log is $2"
  artifact=${artifact#"$ROOT"/}
  note "found: $artifact"
  note "  again, in the fuzzer:  tools/fuzz.sh $1 -- $artifact"
  note "  again, in a debugger:  cp $artifact fuzz/seeds/$1/NAME && cargo test --features testkit --test fuzz"
  die "$1 found an input that breaks a rule"
}

# fuzz TARGET ARGUMENT…
fuzz() {
  local target=$1 log=$LOGS/$1.log reached
  shift
  mkdir -p "fuzz/corpus/$target"
  if ! cargo_fuzz run "$target" "fuzz/corpus/$target" "fuzz/seeds/$target" -- -dict=fuzz/tokenward.dict -rss_limit_mb=512 \
    -max_total_time="$SECONDS_EACH" -timeout=10 -print_final_stats=1 "$@" >"$log" 2>&1; then
    found "$target" "$log"
  fi
  read -r -a reached <<<"$(coverage "$log") - -"
  printf '  %-14s %10s executions %8s/s %8s edges %6s inputs\n' "$target" \
    "$(figure number_of_executed_units "$log")" "$(figure average_exec_per_sec "$log")" "${reached[0]}" "${reached[1]}"
}

targets=()
while (($#)) && [[ $1 != -- ]]; do
  targets+=("$1")
  shift
done
(($# == 0)) || shift
need g++ "libFuzzer is written in C++: install a C++ compiler."
cargo_tool cargo-fuzz "$CARGO_FUZZ" "about 1 minute"
mapfile -t known < <(PATH=$BIN_DIR:$PATH cargo fuzz list)
((${#targets[@]})) || targets=("${known[@]}")
for target in "${targets[@]}"; do
  [[ " ${known[*]} " == *" $target "* ]] || die "unknown target: $target (known: ${known[*]})"
done

step "Build the fuzz targets (about 10 minutes on 2 cores the first time)"
fuzz_lock_is_current || die "fuzz/Cargo.lock is out of date; run: make generate"
cargo_fuzz build
mkdir -p "$LOGS"
if (($#)) && [[ -e $1 ]]; then
  for target in "${targets[@]}"; do
    step "Replay in $target"
    cargo_fuzz run "$target" "$@"
  done
else
  step "Fuzz each target for $SECONDS_EACH s"
  for target in "${targets[@]}"; do fuzz "$target" "$@"; done
fi
