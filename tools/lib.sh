# shellcheck shell=bash
# What every script under tools/ shares. Source it; it sets strict mode and the project's root.
set -euo pipefail

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
TOOLS_DIR=$ROOT/.tools
BIN_DIR=$TOOLS_DIR/bin

if [[ -t 1 && -z ${NO_COLOR:-} ]]; then
  BOLD=$'\e[1m' RED=$'\e[31m' OFF=$'\e[0m'
else
  BOLD='' RED='' OFF=''
fi

note() { printf '%s\n' "$*"; }
step() { printf '\n%s==> %s%s\n' "$BOLD" "$*" "$OFF"; }
die() {
  printf '%serror:%s %s\n' "$RED" "$OFF" "$*" >&2
  exit 1
}

# need PROGRAM HINT: stops with a hint when a program that we cannot build ourselves is missing.
need() {
  command -v "$1" >/dev/null 2>&1 || die "$1 is not installed. $2"
}

# tool NAME: the path of a built tool; KUBEBUILDER_ASSETS wins where it has one of that name.
tool() {
  if [[ -n ${KUBEBUILDER_ASSETS:-} && -x $KUBEBUILDER_ASSETS/$1 ]]; then
    printf '%s\n' "$KUBEBUILDER_ASSETS/$1"
  else
    printf '%s\n' "$BIN_DIR/$1"
  fi
}

# cargo_tool NAME VERSION DURATION: builds a program of cargo's of exactly this version into .tools/bin, unless it is there.
cargo_tool() {
  [[ $("$BIN_DIR/$1" --version 2>/dev/null) != "$1 $2" ]] || return 0
  note "building $1 $2 ($3 on 2 cores, once) …"
  cargo install --quiet --locked --force "$1" --version "$2" --root "$TOOLS_DIR"
}

# locked FILE: name and version of every package of a Cargo.lock.
locked() { awk '/^name = / { name = $3 } /^version = / { print name, $3 }' "$1" | LC_ALL=C sort; }

# fuzz_lock_is_current: whether fuzz/Cargo.lock fits the manifests, and holds what is shipped and the fuzzer beside it.
# cargo-fuzz would change it without a word.
fuzz_lock_is_current() {
  local beside='"(arbitrary|jobserver|libfuzzer-sys|tokenward-fuzz)"'
  cargo metadata --quiet --locked --format-version 1 --manifest-path "$ROOT/fuzz/Cargo.toml" >/dev/null &&
    ! LC_ALL=C comm -23 <(locked "$ROOT/fuzz/Cargo.lock") <(locked "$ROOT/Cargo.lock") | grep -vE "$beside"
}

# wait_until SECONDS COMMAND…: true as soon as the command is, false when the time is up.
wait_until() {
  local deadline=$((SECONDS + $1))
  shift
  until "$@" >/dev/null 2>&1; do
    ((SECONDS < deadline)) || return 1
    sleep 0.2
  done
}

# free_port: a loopback port nobody listens on, below the range the kernel hands out for outgoing connections.
free_port() {
  local port
  for _ in {1..200}; do
    port=$((20000 + (RANDOM * 32768 + RANDOM) % 10000))
    if ! (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
      printf '%s\n' "$port"
      return
    fi
  done
  die "found no free port between 20000 and 30000 on 127.0.0.1"
}

# is_running PIDFILE WORD: the process of that file lives and has WORD on its command line (process ids are reused).
is_running() {
  local pid
  [[ -s $1 ]] && pid=$(<"$1") && kill -0 "$pid" 2>/dev/null || return 1
  [[ ! -r /proc/$pid/cmdline ]] || tr '\0' ' ' <"/proc/$pid/cmdline" 2>/dev/null | grep -qF -- "$2"
}

# start_daemon PIDFILE LOG COMMAND…: detached from the terminal, so that it outlives the caller.
start_daemon() {
  local pidfile=$1 log=$2
  shift 2
  # 9 is the lock of the calling script: a daemon must not keep it.
  setsid "$@" </dev/null >>"$log" 2>&1 9>&- &
  printf '%s\n' "$!" >"$pidfile"
  # Until it runs its own program, its command line is this script's, and is_running would take it for another process.
  while cmp -s "/proc/$$/cmdline" "/proc/$!/cmdline"; do sleep 0.01; done
}

# stop_daemon PIDFILE WORD SECONDS: SIGTERM, and SIGKILL to one that has not ended by then.
stop_daemon() {
  local pid
  if is_running "$1" "$2"; then
    pid=$(<"$1")
    kill "$pid" 2>/dev/null || true
    if ! wait_until "$3" not_running "$pid"; then
      kill -9 "$pid" 2>/dev/null || true
      wait_until 5 not_running "$pid" || die "process $pid ($2) does not end"
    fi
  fi
  rm -f "$1"
}

not_running() {
  ! kill -0 "$1" 2>/dev/null || grep -q '^State:[[:space:]]*Z' "/proc/$1/status" 2>/dev/null
}

# package_field NAME: a field of [package] in Cargo.toml.
package_field() {
  sed -n "/^\[package\]/,/^\[/s/^$1 *= *\"\(.*\)\"/\1/p" "$ROOT/Cargo.toml"
}
