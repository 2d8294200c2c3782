#!/usr/bin/env bash
# Shows the loop turning: a control plane, the chart, the operator, three ApiTokens, a rotation.
#
#   make demo                       on a local control plane, which stays up until `make cluster-down`
#   make demo DEMO_KUBECONFIG=FILE  on a cluster of yours
#
# No pod runs on the local control plane, so the operator runs here, as a process: with the arguments and environment of the
# chart's Deployment, and a token of the chart's ServiceAccount, so with no right more than a pod of it would have.
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
  printf '\n%s$ %s%s\n' "$BOLD" "$*" "$OFF"
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
    "$ROOT/tools/build.sh" kubectl helm
    kubectl version >/dev/null || die "that cluster does not answer"
  else
    step "A Kubernetes control plane on this machine"
    "$ROOT/tools/build.sh" etcd kube-apiserver kube-controller-manager kubectl helm
    "$ROOT/tools/cluster.sh" up
  fi
}

install_chart() {
  step "The chart"
  ADMIN_PORT=$(free_port)
  # No pod can pull an image that is only here: the Deployment is a description, and the process below is its one replica.
  helm upgrade --install tokenward "$ROOT/charts/tokenward" --namespace "$SYSTEM" --create-namespace \
    --set controller.adminAddress=127.0.0.1 --set "controller.adminPort=$ADMIN_PORT" --set log.format=text \
    --set networkPolicy.enabled=false --hide-notes
  kubectl wait --for=condition=Established --timeout=30s crd/apitokens.tokenward.dev >/dev/null
}

# deployment TEMPLATE: a Go template over the controller's container.
deployment() {
  kubectl get deployment --namespace "$SYSTEM" --selector app.kubernetes.io/instance=tokenward \
    --output "go-template={{with index .items 0}}$1{{end}}"
}

operator_kubeconfig() {
  local file=$1 account=$2 admin
  kubectl create token "$account" --namespace "$SYSTEM" --duration 24h >"$RUN/tokenward.token"
  kubectl config view --raw --minify --flatten >"$file"
  admin=$(kubectl config view --minify --output 'jsonpath={.users[0].name}')
  {
    kubectl --kubeconfig "$file" config delete-user "$admin"
    kubectl --kubeconfig "$file" config set users.tokenward.tokenFile "$RUN/tokenward.token"
    kubectl --kubeconfig "$file" config set-context --current --user tokenward
  } >/dev/null
}

start_operator() {
  step "The operator, as the chart's Deployment would run it"
  local file=$RUN/tokenward.kubeconfig account args env
  local container='index .spec.template.spec.containers 0'
  account=$(deployment '{{.spec.template.spec.serviceAccountName}}')
  operator_kubeconfig "$file" "$account"
  mapfile -t args < <(deployment "{{range ($container).args}}{{println .}}{{end}}")
  mapfile -t env < <(deployment "{{range ($container).env}}{{.name}}={{with .valueFrom}}{{.fieldRef.fieldPath}}{{else}}{{.value}}{{end}}{{\"\\n\"}}{{end}}")
  env=("${env[@]/%=metadata.namespace/=$SYSTEM}")
  env=("${env[@]/%=metadata.name/=tokenward-demo}")
  ((${#args[@]})) || die "the chart's Deployment has no arguments"

  stop_daemon "$RUN/tokenward.pid" "$RUN/" 15
  : >"$RUN/tokenward.log"
  start_daemon "$RUN/tokenward.pid" "$RUN/tokenward.log" \
    env -i "${env[@]}" "$ROOT/target/release/tokenward" "${args[@]}" --kubeconfig "$file"
  if ! wait_until 30 curl --silent --fail --max-time 2 "http://127.0.0.1:$ADMIN_PORT/readyz"; then
    tail -n 15 "$RUN/tokenward.log" >&2
    die "the operator is not ready; its log is $RUN/tokenward.log"
  fi
  note "process $(<"$RUN/tokenward.pid") as system:serviceaccount:$SYSTEM:$account, log .run/tokenward.log"
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

what_next() {
  step "The loop is turning, and keeps turning. Try next:"
  cat <<TXT
  export KUBECONFIG=$RUN/demo.kubeconfig PATH=$(dirname "$(tool kubectl)"):\$PATH
  kubectl explain apitoken.spec.rotation
  kubectl delete secret rotation        # lost: a new credential within a second, and an event that says why
  kubectl annotate apitoken full tokenward.dev/compromised-at=\$(date -u +%FT%TZ)   # leaked: no overlap
  kubectl get apitokens -o wide --watch
  curl -s http://127.0.0.1:$ADMIN_PORT/metrics | grep ^tokenward_
  tail -f .run/tokenward.log
TXT
  if [[ -n ${DEMO_KUBECONFIG:-} ]]; then
    note "To end it: make cluster-down stops the operator; in your cluster, delete the namespaces $NAMESPACE and $SYSTEM."
  else
    note "To end it: make cluster-down"
  fi
}

prepare
install_chart
start_operator
declare_tokens
look_at_secret rotation
look_at_secret full-token
rotate
what_next
