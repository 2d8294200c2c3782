#!/usr/bin/env bash
# Shows the loop turning: a control plane, the chart, the operator, three ApiTokens, a gate behind a real Envoy and a real nginx,
# who uses a token and from where, a revocation, and who still uses the old credential after a rotation.
#
#   make demo                       on a local control plane, which stays up until `make cluster-down`
#   make demo DEMO_KUBECONFIG=FILE  on a cluster of yours
#   tools/demo.sh hints             tries what the demo printed last, as `make demo` does once the demo has ended
#
# No pod runs on the local control plane, so operator and gate run here, as processes: with the arguments and environment of the
# chart's Deployments, and a token of the chart's ServiceAccount each, so with no right more than a pod of it would have.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
umask 077

RUN=$ROOT/.run
SYSTEM=tokenward-system
NAMESPACE=tokenward-demo
EXAMPLES=(minimal rotation full)

KUBECONFIG=${DEMO_KUBECONFIG:-$RUN/kubeconfig}
export KUBECONFIG
kubectl() { "$(tool kubectl)" "$@"; }
helm() { "$(tool helm)" "$@"; }

# show COMMAND…: the command as a reader would type it, then what it prints.
show() {
  local word line=
  for word in "$@"; do
    [[ $word =~ ^[A-Za-z0-9_./:=,@+-]+$ ]] || word="'${word//\'/\'\\\'\'}'"
    line+=" $word"
  done
  printf '\n%s$%s%s\n' "$BOLD" "$line" "$OFF"
  "$@"
}

prepare() {
  need cargo "It builds the operator: install Rust with rustup."
  need curl "It asks the operator whether it is ready: apt-get install curl"
  mkdir -p "$RUN"
  step "The operator: cargo build --release"
  (cd "$ROOT" && cargo build --release --locked --bin tokenward)
  if [[ -n ${DEMO_KUBECONFIG:-} ]]; then
    step "Your cluster: $DEMO_KUBECONFIG"
    [[ -r $DEMO_KUBECONFIG ]] || die "cannot read $DEMO_KUBECONFIG"
    "$ROOT/tools/build.sh" kubectl helm envoy nginx
    kubectl version >/dev/null || die "that cluster does not answer"
  else
    step "A Kubernetes control plane on this machine"
    "$ROOT/tools/build.sh" etcd kube-apiserver kube-controller-manager kubectl helm envoy nginx
    "$ROOT/tools/cluster.sh" up
  fi
}

# free_ports COUNT: so many of them, no two the same.
free_ports() {
  local port ports=()
  while ((${#ports[@]} < $1)); do
    port=$(free_port) || return
    [[ " ${ports[*]} " == *" $port "* ]] || ports+=("$port")
  done
  printf '%s\n' "${ports[*]}"
}

install_chart() {
  step "The chart"
  local ledger_port
  read -r ADMIN_PORT ledger_port < <(free_ports 2)
  # No pod can pull an image that is only here: the Deployment is a description, and the process below is its one replica.
  helm upgrade --install tokenward "$ROOT/charts/tokenward" --namespace "$SYSTEM" --create-namespace \
    --set controller.adminAddress=127.0.0.1 --set "controller.adminPort=$ADMIN_PORT" \
    --set ledger.address=127.0.0.1 --set "ledger.port=$ledger_port" \
    --set log.format=text --set networkPolicy.enabled=false --hide-notes
  kubectl wait --for=condition=Established --timeout=30s crd/apitokens.tokenward.dev >/dev/null
}

# deployment COMPONENT TEMPLATE: a Go template over the Deployment of that component.
deployment() {
  kubectl get deployment --namespace "$SYSTEM" \
    --selector "app.kubernetes.io/instance=tokenward,app.kubernetes.io/component=$1" \
    --output "go-template={{with index .items 0}}$2{{end}}"
}

# kubeconfig_of ACCOUNT FILE: the cluster as this ServiceAccount sees it.
kubeconfig_of() {
  local account=$1 file=$2 admin
  kubectl create token "$account" --namespace "$SYSTEM" --duration 24h >"$file.token"
  kubectl config view --raw --minify --flatten >"$file"
  admin=$(kubectl config view --minify --output 'jsonpath={.users[0].name}')
  {
    kubectl --kubeconfig "$file" config delete-user "$admin"
    kubectl --kubeconfig "$file" config set users.tokenward.tokenFile "$file.token"
    kubectl --kubeconfig "$file" config set-context --current --user tokenward
  } >/dev/null
}

# start_role COMPONENT NAME ADMIN_PORT SED_SCRIPT: the process that this component's pod would run. The script rewrites arguments
# that make no sense outside of a pod.
start_role() {
  local component=$1 name=$2 port=$3 script=$4 file=$RUN/$2.kubeconfig account args env
  local container='index .spec.template.spec.containers 0'
  account=$(deployment "$component" '{{.spec.template.spec.serviceAccountName}}')
  kubeconfig_of "$account" "$file"
  mapfile -t args < <(deployment "$component" "{{range ($container).args}}{{println .}}{{end}}" | sed "/^$/d; $script")
  mapfile -t env < <(deployment "$component" "{{range ($container).env}}{{.name}}={{with .valueFrom}}{{.fieldRef.fieldPath}}{{else}}{{.value}}{{end}}{{\"\\n\"}}{{end}}")
  env=("${env[@]/%=metadata.namespace/=$SYSTEM}")
  env=("${env[@]/%=metadata.name/=tokenward-demo-$component}")
  env=("${env[@]/%=status.podIP/=127.0.0.1}")
  ((${#args[@]})) || die "the chart's Deployment has no arguments"
  stop_daemon "$RUN/$name.pid" "$RUN/" 15
  : >"$RUN/$name.log"
  start_daemon "$RUN/$name.pid" "$RUN/$name.log" \
    env -i "${env[@]}" "$ROOT/target/release/tokenward" "${args[@]}" --kubeconfig "$file"
  if ! wait_until 30 curl --silent --fail --max-time 2 "http://127.0.0.1:$port/readyz"; then
    tail -n 15 "$RUN/$name.log" >&2
    die "the $component is not ready; its log is $RUN/$name.log"
  fi
  note "process $(<"$RUN/$name.pid") as system:serviceaccount:$SYSTEM:$account, log .run/$name.log"
}

start_operator() {
  step "The operator, as the chart's Deployment would run it"
  start_role controller tokenward "$ADMIN_PORT" ""
}

start_gate() {
  step "A gate, as the chart's Deployment would run it"
  read -r GATE_HTTP GATE_GRPC GATE_ADMIN < <(free_ports 3)
  # A pod gets this token as a file, and a new one every hour.
  kubectl create token "$(deployment gate '{{.spec.template.spec.serviceAccountName}}')" --namespace "$SYSTEM" \
    --audience tokenward-ledger --duration 24h >"$RUN/ledger.token"
  start_role gate gate "$GATE_ADMIN" "s/^--http-listen=.*/--http-listen=127.0.0.1:$GATE_HTTP/
    s/^--grpc-listen=.*/--grpc-listen=127.0.0.1:$GATE_GRPC/; s/^--admin-listen=.*/--admin-listen=127.0.0.1:$GATE_ADMIN/
    s#^--ledger-token-file=.*#--ledger-token-file=$RUN/ledger.token#"
}

# example FILE PORT: that configuration of examples/gate on our ports, for the API that the demo's tokens are for.
example() {
  sed "s/127.0.0.1:8181/127.0.0.1:$GATE_HTTP/; s/port_value: 8181/port_value: $GATE_HTTP/; s/port_value: 8182/port_value: $GATE_GRPC/
    s/127.0.0.1:9000/127.0.0.1:$API_PORT/; s/port_value: 9000/port_value: $API_PORT/
    s/127.0.0.1:8000/127.0.0.1:$2/; s/port_value: 8000/port_value: $2/
    s/audience=orders&/audience=orders-api\&/; s/audience: orders\b/audience: orders-api/" "$ROOT/examples/gate/$1"
}

# The API behind the proxies is an nginx, too: it says whom it was told that it serves.
api_conf() {
  cat <<TXT
pid $RUN/api/nginx.pid;
error_log stderr warn;
events {}
http {
  access_log off;
  client_body_temp_path $RUN/api/body; proxy_temp_path $RUN/api/proxy; fastcgi_temp_path $RUN/api/fastcgi;
  uwsgi_temp_path $RUN/api/uwsgi; scgi_temp_path $RUN/api/scgi;
  server {
    listen 127.0.0.1:$API_PORT;
    default_type text/plain;
    location / { return 200 "orders for \$http_x_tokenward_token, owned by \$http_x_tokenward_owner\n"; }
  }
}
TXT
}

start_proxies() {
  step "A real Envoy (gRPC) and a real nginx (auth_request) before an API, as in examples/gate"
  read -r API_PORT ENVOY_PORT NGINX_PORT < <(free_ports 3)
  mkdir -p "$RUN/api" "$RUN/nginx"
  api_conf >"$RUN/api/nginx.conf"
  example nginx.conf "$NGINX_PORT" >"$RUN/nginx/nginx.conf"
  example envoy-grpc.yaml "$ENVOY_PORT" >"$RUN/envoy.yaml"
  local name
  for name in api nginx envoy; do stop_daemon "$RUN/$name.pid" "$RUN/" 15; done
  for name in api nginx; do
    start_daemon "$RUN/$name.pid" "$RUN/$name.log" "$(tool nginx)" -p "$RUN/$name" -c "$RUN/$name/nginx.conf" -g 'daemon off;'
  done
  start_daemon "$RUN/envoy.pid" "$RUN/envoy.log" \
    "$(tool envoy)" --config-path "$RUN/envoy.yaml" --disable-hot-restart --log-level warning
  local port
  for port in "$API_PORT" "$NGINX_PORT" "$ENVOY_PORT"; do
    wait_until 20 curl --silent --max-time 2 "http://127.0.0.1:$port/" || die "nothing answers on port $port; see .run/*.log"
  done
  note "Envoy on port $ENVOY_PORT, nginx on port $NGINX_PORT"
}

declare_tokens() {
  step "Three ApiTokens, from examples/"
  local name files=()
  for name in "${EXAMPLES[@]}"; do files+=(--filename "$ROOT/examples/$name.yaml"); done
  kubectl create namespace "$NAMESPACE" --dry-run=client --output yaml | kubectl apply --filename - >/dev/null
  kubectl label namespace "$NAMESPACE" owner=demo-team --overwrite >/dev/null
  kubectl config view --raw --minify --flatten >"$RUN/demo.kubeconfig"
  export KUBECONFIG=$RUN/demo.kubeconfig
  kubectl config set-context --current --namespace "$NAMESPACE" >/dev/null
  kubectl apply "${files[@]}"
  show kubectl wait --for=condition=Ready apitoken --all --timeout=60s
  show kubectl get apitokens -o wide
}

# Hides a token but its prefix and id, which are names, and any other run of characters long enough to be a secret.
mask() { sed -E 's/([a-z][a-z0-9_]*_[A-Za-z0-9]{10}_)[A-Za-z0-9]{49}/\1…/g; s#[A-Za-z0-9+/=]{24,}#…#g'; }

# The keys, each with what it holds; further lines of a value stand under the first.
look_at_secret() {
  note ""
  note "${BOLD}Secret $1: keys and annotations, the value masked$OFF"
  # shellcheck disable=SC2016 # the dollars are the template's
  kubectl get secret "$1" --output 'go-template={{range $key, $value := .data}}{{printf "@%-24s" $key}}{{$value | base64decode}}{{"\n"}}{{end}}' |
    mask | sed '/^$/d; s/^@/  /; t; s/^/                          /'
  # shellcheck disable=SC2016
  kubectl get secret "$1" --output 'go-template={{range $key, $value := .metadata.annotations}}  {{$key}}: {{$value}}{{"\n"}}{{end}}'
}

look_at_credentials() {
  kubectl get apitoken "$1" --output 'go-template={{range .status.credentials}}  {{.id}}  {{printf "%-9s" .state}}{{with .notAfter}} until {{.}}{{end}}{{"\n"}}{{end}}'
}

rotate() {
  local now
  now=$(date -u +%Y-%m-%dT%H:%M:%S.%NZ)
  step "A rotation: the new token is delivered, the old one stays valid for the overlap"
  note "Credentials of rotation before:"
  look_at_credentials rotation
  show kubectl annotate apitoken rotation --overwrite "tokenward.dev/rotate-requested-at=$now"
  kubectl wait apitoken/rotation --for="jsonpath={.status.lastHandled.rotateRequestedAt}=$now" --timeout=30s >/dev/null
  kubectl wait apitoken/rotation --for=condition=Ready --timeout=30s >/dev/null
  note "and after:"
  look_at_credentials rotation
  show kubectl events --for apitoken/rotation
}

# ask PORT TOKEN: what a client gets, the token not shown. It tries again where a proxy found the gate too slow, as it may be
# on a busy machine.
ask() {
  curl --silent --max-time 5 --retry 3 --retry-delay 1 --output "$RUN/answer" --write-out '%{http_code}  ' \
    --header "Authorization: Bearer $2" "http://127.0.0.1:$1/orders"
  head -n 1 "$RUN/answer"
}

token_of() { kubectl get secret "$1" --output "go-template={{.data.token | base64decode}}"; }

# is_answered PORT TOKEN STATUS: whether a client gets this now.
is_answered() { ask "$1" "$2" | grep -q "^$3"; }

# used NAME COUNT: until the table shows so many requests. More, if a client had to try again.
used() {
  wait_until 60 shows_use "$1" "$2" || die "the use did not come back; see .run/gate.log and .run/tokenward.log"
}

shows_use() { [[ $(kubectl get apitoken "$1" --output 'jsonpath={.status.usage.requests}') -ge $2 ]]; }

use() {
  step "Clients use the token from the Secret, through Envoy and through nginx"
  local i
  OLD=$(token_of rotation)
  note "a client of Envoy:  $(ask "$ENVOY_PORT" "$OLD")"
  note "a client of nginx:  $(ask "$NGINX_PORT" "$OLD")"
  note "without a token:    $(curl --silent --output /dev/null --write-out '%{http_code}' "http://127.0.0.1:$ENVOY_PORT/orders")"
  for i in {1..8}; do ask "$ENVOY_PORT" "$OLD" >/dev/null; done
  used rotation 10
  show kubectl get apitokens -o wide
  note ""
  note "${BOLD}From where$OFF"
  callers rotation
}

callers() {
  kubectl get tokenusage "$1" --output 'go-template={{range .status.callers}}  {{.credential}}  {{printf "%-16s" .address}} {{printf "%-14s" .userAgent}} {{.requests}} requests{{"\n"}}{{end}}'
}

suspend() {
  step "Suspended: the next request is refused"
  show kubectl patch apitoken rotation --type merge --patch '{"spec": {"suspend": true}}'
  # The patch is there a moment before the gate hears of it.
  wait_until 30 is_answered "$ENVOY_PORT" "$OLD" 401 || die "it is not refused; see .run/gate.log"
  note "a client of Envoy:  $(ask "$ENVOY_PORT" "$OLD")"
  note "a client of nginx:  $(ask "$NGINX_PORT" "$OLD" | head -c 3)"
  show kubectl patch apitoken rotation --type merge --patch '{"spec": {"suspend": false}}'
  wait_until 30 is_answered "$ENVOY_PORT" "$OLD" 200 || die "it is still refused; see .run/gate.log"
  note "a client of Envoy:  $(ask "$ENVOY_PORT" "$OLD")"
}

still_used() {
  step "After the rotation: one client has followed, one has not"
  note "with the new token: $(ask "$ENVOY_PORT" "$(token_of rotation)")"
  note "with the old one:   $(ask "$NGINX_PORT" "$OLD")"
  kubectl wait apitoken/rotation --for='jsonpath={.status.credentials[?(@.state=="Active")].lastUsedAt}' --timeout=60s >/dev/null
  note ""
  kubectl get apitoken rotation --output 'go-template={{range .status.credentials}}  {{.id}}  {{printf "%-9s" .state}} last used {{.lastUsedAt}}{{"\n"}}{{end}}'
  callers rotation
  show kubectl get apitoken rotation
}

what_next() {
  step "The loop is turning, and keeps turning. Try next:"
  cat >"$RUN/hints" <<TXT
  export KUBECONFIG=$RUN/demo.kubeconfig PATH=$(dirname "$(tool kubectl)"):\$PATH
  kubectl explain apitoken.spec.rotation
  kubectl delete secret rotation        # lost: a new credential within a second, and an event that says why
  kubectl annotate apitoken full --overwrite tokenward.dev/compromised-at=\$(date -u +%FT%TZ)   # leaked: no overlap
  kubectl get apitokens -o wide --watch
  curl -s http://127.0.0.1:$ADMIN_PORT/metrics | grep ^tokenward_
  kubectl get tokenusage rotation -o yaml   # who, how often, with which outcome, by the hour
  curl -i -H "Authorization: Bearer \$(kubectl get secret rotation -o go-template='{{.data.token | base64decode}}')" http://127.0.0.1:$ENVOY_PORT/
  curl -i -H "Authorization: Bearer \$(kubectl get secret rotation -o go-template='{{.data.token | base64decode}}')" http://127.0.0.1:$NGINX_PORT/
  tail -f $RUN/tokenward.log $RUN/gate.log
TXT
  cat "$RUN/hints"
  if [[ -n ${DEMO_KUBECONFIG:-} ]]; then
    note "To end it, in this order: kubectl delete namespace $NAMESPACE; helm uninstall tokenward --namespace $SYSTEM;"
    note "kubectl delete namespace $SYSTEM; make cluster-down, which stops the operator. The CustomResourceDefinitions stay."
  else
    note "To end it: make cluster-down"
  fi
}

# What was printed works, and still does when the process that printed it is gone: each line is run as it stands, except that
# what would change something is asked of the API server only, and what would not end is looked at once.
try_hints() {
  step "Every hint, tried from another process"
  local hint setup
  setup=$(head -n 1 "$RUN/hints")
  while IFS= read -r hint <&3; do
    hint=$(sed -E 's/^ +//; s/ +# .*//; s/ --watch//; s/^tail -f/tail -n 1/; s/^curl /curl --fail --max-time 5 /
      s/^kubectl (delete|annotate) .*/& --dry-run=server/' <<<"$hint")
    bash -euo pipefail -c "$setup; $hint" </dev/null >"$RUN/hint" 2>&1 || {
      mask <"$RUN/hint" >&2
      die "this does not work: $hint"
    }
    note "works: $hint"
  done 3< <(tail -n +2 "$RUN/hints")
}

if [[ ${1:-} == hints ]]; then
  try_hints
  exit
fi
prepare
install_chart
start_operator
start_gate
start_proxies
declare_tokens
look_at_secret rotation
look_at_secret full-token
use
suspend
rotate
still_used
what_next
