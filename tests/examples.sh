#!/usr/bin/env bash
# Checks examples/gate: the proxies parse their configurations, and a real API server with the real definitions of other
# projects accepts the objects, strictly. What the proxies do with a gate is tested end to end.
#
#   tests/examples.sh   starts a control plane of its own in .run/examples and takes it down at the end
source "$(dirname "${BASH_SOURCE[0]}")/../tools/lib.sh"
cd "$ROOT"

WORK=$(mktemp -d)
passed=0

stop() {
  local code=$?
  tools/cluster.sh down --dir .run/examples >/dev/null || true
  rm -rf "$WORK"
  exit "$code"
}
trap stop EXIT

# check WHAT COMMAND…: stops with its output if the command fails.
check() {
  local what=$1 output
  shift
  output=$("$@" 2>&1) || die "$what: $output"
  passed=$((passed + 1))
  note "  ok    $what"
}

# refuses WHAT COMMAND…: the check itself is able to fail.
refuses() {
  local what=$1
  shift
  if "$@" >/dev/null 2>&1; then die "$what: it was accepted"; fi
  passed=$((passed + 1))
  note "  ok    $what"
}

broken() { sed "s/$1/$2/" "examples/gate/$3" >"$WORK/$3" && ! cmp -s "examples/gate/$3" "$WORK/$3"; }

envoy_parses() { "$(tool envoy)" --mode validate --log-level error --config-path "$1"; }
nginx_parses() { "$(tool nginx)" -t -q -p "$WORK" -c "$1"; }
caddy_parses() { "$(tool caddy)" validate --adapter caddyfile --config "$1"; }

proxies() {
  note "the proxies parse their configurations"
  check "envoy-grpc.yaml" envoy_parses examples/gate/envoy-grpc.yaml
  check "envoy-http.yaml" envoy_parses examples/gate/envoy-http.yaml
  check "nginx.conf" nginx_parses "$ROOT/examples/gate/nginx.conf"
  check "Caddyfile" caddy_parses examples/gate/Caddyfile
  broken encode_raw_headers encode_row_headers envoy-grpc.yaml
  refuses "envoy-grpc.yaml with an unknown field is refused" envoy_parses "$WORK/envoy-grpc.yaml"
  broken auth_request_set auth_request_put nginx.conf
  refuses "nginx.conf with an unknown directive is refused" nginx_parses "$WORK/nginx.conf"
  broken copy_headers copy_header Caddyfile
  refuses "Caddyfile with an unknown option is refused" caddy_parses "$WORK/Caddyfile"
}

# module_folder MODULE VERSION SUM: where that module lies, once its checksum is the pinned one.
module_folder() {
  local answer
  answer=$(cd / && GOWORK=off GOFLAGS=-mod=mod go mod download -json "$1@$2") || die "could not fetch $1@$2: $answer"
  grep -qF "\"Sum\": \"$3\"" <<<"$answer" || die "$1@$2 is not what tools/crds/modules.txt pins: $answer"
  sed -n 's/^\t"Dir": "\(.*\)",$/\1/p' <<<"$answer"
}

# Definitions of other projects, as far as the examples use them.
definitions() {
  local module version sum files folder file
  while read -r module version sum files; do
    folder=$(module_folder "$module" "$version" "$sum")
    for file in $files; do
      check "definitions of $module $version: $(basename "$file")" apply_definitions "$folder/$file"
    done
  done < <(grep -v '^#' tools/crds/modules.txt)
  kubectl wait --for=condition=Established --timeout=60s crd --all >/dev/null
}

# A chart's templates: the lines with conditions only go.
apply_definitions() { sed '/^{{.*}}$/d' "$1" | kubectl apply --server-side --filename -; }

accepts() {
  local output
  output=$(kubectl apply --server-side --dry-run=server --validate=strict --filename "$1" 2>&1) &&
    ! grep '^Warning' <<<"$output" || { note "$output" && return 1; }
}

objects() {
  note "the API server accepts the objects"
  need go "The definitions come from Go modules: install Go 1.26 or newer."
  tools/cluster.sh up --dir .run/examples --until-exit-of $$ >/dev/null
  export KUBECONFIG=$ROOT/.run/examples/kubeconfig
  local name
  definitions
  for name in orders tokenward; do kubectl create namespace "$name" >/dev/null; done
  for name in envoy-gateway gateway-api istio traefik; do
    check "$name.yaml" accepts "examples/gate/$name.yaml"
  done
  broken 'timeout: 200ms' 'timeouts: 200ms' envoy-gateway.yaml
  refuses "envoy-gateway.yaml with an unknown field is refused" accepts "$WORK/envoy-gateway.yaml"
  broken 'path: .authz.envoy$' 'path: \/authz\/envoy?audience=orders' gateway-api.yaml
  refuses "gateway-api.yaml with a query in its path is refused" accepts "$WORK/gateway-api.yaml"
}

kubectl() { "$(tool kubectl)" "$@"; }

tools/build.sh kubectl envoy nginx caddy
proxies
objects
note "$passed checks passed"
