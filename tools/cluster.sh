#!/usr/bin/env bash
# A real Kubernetes control plane on this machine, without containers: etcd, kube-apiserver, kube-controller-manager.
# There is no kubelet: objects are stored, validated, admitted, owned and collected as in any cluster; no pod runs.
#
#   tools/cluster.sh up               start it (says so when it runs already); prints the kubeconfig's path
#   tools/cluster.sh down             stop it, and all that a *.pid in its folder names, and throw its data away;
#                                     the logs stay
#   tools/cluster.sh status           say what runs
#   tools/cluster.sh stop-apiserver   take the API server away: same data, same port when it comes back
#   tools/cluster.sh start-apiserver
#
#   --dir D              keep state in D (default .run); clusters in different folders run side by side
#   --until-exit-of PID  with up: take the cluster down by itself once that process has ended
#
# Everything listens on 127.0.0.1, on free ports. State in D: kubeconfig (an administrator's), *.log, etcd/, pki/.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

PARTS=(etcd kube-apiserver kube-controller-manager)
START_SECONDS=${TOKENWARD_START_SECONDS:-90} # a start takes about 3 s; the bound is for a busy machine

usage() { sed -n '2,/^source/s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; }

# --- Keys and certificates -------------------------------------------------------------------------------------------

# A small authority and a serving certificate signed by it: clients that refuse a self-signed leaf accept this chain.
write_pki() {
  local pki=$DIR/pki
  [[ ! -f $pki/done ]] || return 0
  mkdir -p "$pki"
  cat >"$pki/openssl.cnf" <<'CNF'
[req]
distinguished_name = name
[name]
[authority]
basicConstraints = critical,CA:TRUE
keyUsage = critical,keyCertSign,cRLSign
subjectKeyIdentifier = hash
[serving]
basicConstraints = critical,CA:FALSE
keyUsage = critical,digitalSignature
extendedKeyUsage = serverAuth
subjectAltName = IP:127.0.0.1,DNS:localhost,DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc
CNF
  {
    openssl ecparam -name prime256v1 -genkey -noout -out "$pki/ca.key"
    openssl req -x509 -new -key "$pki/ca.key" -subj "/CN=tokenward-local-authority" -days 3650 \
      -config "$pki/openssl.cnf" -extensions authority -out "$pki/ca.crt"
    openssl ecparam -name prime256v1 -genkey -noout -out "$pki/apiserver.key"
    openssl req -new -key "$pki/apiserver.key" -subj "/CN=kube-apiserver" -config "$pki/openssl.cnf" -out "$pki/apiserver.csr"
    openssl x509 -req -in "$pki/apiserver.csr" -CA "$pki/ca.crt" -CAkey "$pki/ca.key" -set_serial 2 -days 3650 \
      -extfile "$pki/openssl.cnf" -extensions serving -out "$pki/apiserver.crt"
    openssl genrsa -out "$pki/sa.key" 2048
    openssl rsa -in "$pki/sa.key" -pubout -out "$pki/sa.pub"
  } >"$pki/openssl.log" 2>&1 || die "openssl failed: $(tail -n 3 "$pki/openssl.log")"
  {
    echo "$(openssl rand -hex 24),admin,admin,system:masters"
    echo "$(openssl rand -hex 24),system:kube-controller-manager,controller-manager"
  } >"$pki/tokens.csv"
  touch "$pki/done"
}

# kubeconfig_for USER FILE
kubeconfig_for() {
  cat >"$2.new" <<YAML
apiVersion: v1
kind: Config
current-context: local
clusters:
  - name: local
    cluster:
      server: https://127.0.0.1:$API_PORT
      certificate-authority-data: $(base64 -w0 "$DIR/pki/ca.crt")
users:
  - name: $1
    user:
      token: $(awk -F, -v user="$1" '$2 == user {print $1}' "$DIR/pki/tokens.csv")
contexts:
  - name: local
    context: {cluster: local, user: $1}
YAML
  mv "$2.new" "$2"
}

# --- The three processes ---------------------------------------------------------------------------------------------

choose_ports() {
  ETCD_PORT=$(free_port) ETCD_PEER_PORT=$(free_port) API_PORT=$(free_port)
  printf 'ETCD_PORT=%s\nETCD_PEER_PORT=%s\nAPI_PORT=%s\n' "$ETCD_PORT" "$ETCD_PEER_PORT" "$API_PORT" >"$DIR/ports"
}

load_ports() {
  [[ -f $DIR/ports ]] || die "no cluster in $DIR; start one with: tools/cluster.sh up --dir $DIR"
  # shellcheck disable=SC1091 # three assignments, written by choose_ports
  source "$DIR/ports"
}

start_etcd() {
  start_daemon "$DIR/etcd.pid" "$DIR/etcd.log" "$(tool etcd)" \
    --data-dir "$DIR/etcd" --unsafe-no-fsync --log-level warn \
    --listen-client-urls "http://127.0.0.1:$ETCD_PORT" --advertise-client-urls "http://127.0.0.1:$ETCD_PORT" \
    --listen-peer-urls "http://127.0.0.1:$ETCD_PEER_PORT" --initial-advertise-peer-urls "http://127.0.0.1:$ETCD_PEER_PORT" \
    --initial-cluster "default=http://127.0.0.1:$ETCD_PEER_PORT"
}

# No reconciler of the `kubernetes` endpoints: it refuses loopback addresses, and nothing here resolves that service.
start_kube-apiserver() {
  start_daemon "$DIR/kube-apiserver.pid" "$DIR/kube-apiserver.log" "$(tool kube-apiserver)" \
    --etcd-servers "http://127.0.0.1:$ETCD_PORT" \
    --bind-address 127.0.0.1 --advertise-address 127.0.0.1 --secure-port "$API_PORT" --endpoint-reconciler-type none \
    --cert-dir "$DIR/pki" --tls-cert-file "$DIR/pki/apiserver.crt" --tls-private-key-file "$DIR/pki/apiserver.key" \
    --authorization-mode RBAC --token-auth-file "$DIR/pki/tokens.csv" \
    --service-account-issuer https://kubernetes.default.svc --service-account-key-file "$DIR/pki/sa.pub" \
    --service-account-signing-key-file "$DIR/pki/sa.key" \
    --service-cluster-ip-range 10.96.0.0/16 --allow-privileged
}

start_kube-controller-manager() {
  start_daemon "$DIR/kube-controller-manager.pid" "$DIR/kube-controller-manager.log" "$(tool kube-controller-manager)" \
    --kubeconfig "$DIR/pki/controller-manager.kubeconfig" --use-service-account-credentials \
    --service-account-private-key-file "$DIR/pki/sa.key" --root-ca-file "$DIR/pki/ca.crt" \
    --controllers='*,-nodelifecycle,-nodeipam,-cloud-node-lifecycle' --secure-port 0 --leader-elect=false \
    --kube-api-qps 500 --kube-api-burst 1000
}

running() { is_running "$DIR/$1.pid" "$DIR/"; }
all_running() {
  local part
  for part in "${PARTS[@]}"; do running "$part" || return 1; done
}

start() {
  if ! running "$1"; then "start_$1"; fi
}

# The API server, asked to end, waits for its clients' watches: nobody here has the time.
stop() {
  local seconds=10
  if [[ $1 == kube-apiserver ]]; then seconds=2; fi
  stop_daemon "$DIR/$1.pid" "$DIR/" "$seconds"
}

# The API server goes first: without etcd it can hang for minutes.
stop_all() {
  stop kube-controller-manager
  stop kube-apiserver
  stop etcd
}

# --- Readiness -------------------------------------------------------------------------------------------------------

api() {
  curl --silent --fail --max-time 5 --cacert "$DIR/pki/ca.crt" \
    --header "Authorization: Bearer $(cut -d, -f1 "$DIR/pki/tokens.csv" | head -n 1)" "https://127.0.0.1:$API_PORT$1"
}
etcd_ready() { curl --silent --fail --max-time 5 "http://127.0.0.1:$ETCD_PORT/health"; }
apiserver_ready() { api /readyz; }
# The controllers work once one of them has made the default ServiceAccount.
controllers_ready() { api /api/v1/namespaces/default/serviceaccounts/default; }

ready_or_dead() { "$2" || ! running "$1"; }

# wait_ready PART CHECK: false when the part has ended or is not ready in time; its log says why.
wait_ready() {
  if wait_until "$START_SECONDS" ready_or_dead "$1" "$2" && running "$1"; then
    return 0
  fi
  if running "$1"; then
    note "$1 is not ready after $START_SECONDS s; the end of $DIR/$1.log:"
  else
    note "$1 ended during its start; the end of $DIR/$1.log:"
  fi
  tail -n 12 "$DIR/$1.log" | cut -c1-300 | sed 's/^/    /'
  return 1
} >&2

lost_a_port() { grep -q 'address already in use' "$DIR/etcd.log" "$DIR/kube-apiserver.log" 2>/dev/null; }

start_all() {
  start etcd
  wait_ready etcd etcd_ready || return 1
  start kube-apiserver
  wait_ready kube-apiserver apiserver_ready || return 1
  start kube-controller-manager
  wait_ready kube-controller-manager controllers_ready
}

# --- Commands --------------------------------------------------------------------------------------------------------

up() {
  if all_running && load_ports && apiserver_ready >/dev/null; then
    note "the cluster is running: $DIR/kubeconfig"
    return
  fi
  need openssl "It makes the cluster's keys: apt-get install openssl"
  need curl "It asks the API server whether it is ready: apt-get install curl"
  "$ROOT/tools/build.sh" etcd kube-apiserver kube-controller-manager kubectl
  local started=$SECONDS
  write_pki
  for attempt in 1 2 3; do
    stop_all
    rm -f "$DIR"/*.log
    # After a crash the old ports serve the old clients; a port that is taken is a reason for new ones.
    if ((attempt == 1)) && [[ -f $DIR/ports ]]; then load_ports; else choose_ports; fi
    kubeconfig_for admin "$DIR/kubeconfig"
    kubeconfig_for system:kube-controller-manager "$DIR/pki/controller-manager.kubeconfig"
    if start_all; then
      if [[ -n $GUARD_PID ]]; then start_guard; fi
      note "cluster ready after $((SECONDS - started)) s: Kubernetes $(server_version) at https://127.0.0.1:$API_PORT"
      note "kubeconfig: $DIR/kubeconfig"
      return
    fi
    lost_a_port || break
    note "another process took a port (attempt $attempt)" >&2
  done
  stop_all
  die "the cluster did not start; logs are in $DIR"
}

server_version() { api /version | sed -n 's/.*"gitVersion": *"\([^"]*\)".*/\1/p'; }

# A test that is killed cannot clean up; this small process does.
start_guard() {
  # shellcheck disable=SC2016 # the inner shell expands these
  start_daemon "$DIR/guard.pid" "$DIR/guard.log" \
    bash -c 'while kill -0 "$1" 2>/dev/null; do sleep 1; done; exec "$2" down --dir "$3"' \
    guard "$GUARD_PID" "$ROOT/tools/cluster.sh" "$DIR/"
}

down() {
  [[ -d $DIR ]] || return 0
  local part pidfile
  for pidfile in "$DIR"/*.pid; do
    part=$(basename "$pidfile" .pid)
    # The control plane has an order of its own; the guard may be who is calling.
    if [[ " ${PARTS[*]} " == *" $part "* || $(cat "$pidfile" 2>/dev/null) == "$$" ]]; then continue; fi
    stop "$part"
  done
  stop_all
  rm -rf "$DIR/etcd" "$DIR/pki" "$DIR/ports" "$DIR/kubeconfig" "$DIR/guard.pid"
  note "the cluster in $DIR is down"
}

status() {
  local part
  for part in "${PARTS[@]}"; do
    if running "$part"; then
      note "$part runs (process $(<"$DIR/$part.pid"))"
    else
      note "$part does not run"
    fi
  done
  all_running || return 1
  note "kubeconfig: $DIR/kubeconfig"
}

stop_apiserver() {
  stop kube-apiserver
  note "the API server is stopped"
}

start_apiserver() {
  load_ports
  running etcd || die "etcd does not run in $DIR; start the cluster with: tools/cluster.sh up"
  start kube-apiserver
  wait_ready kube-apiserver apiserver_ready || die "the API server did not come back"
  note "the API server is back at https://127.0.0.1:$API_PORT"
}

command=${1:-help}
(($# == 0)) || shift
DIR=$ROOT/.run
GUARD_PID=''
while (($#)); do
  case $1 in
    --dir) DIR=${2:?--dir needs a folder} ;;
    --until-exit-of) GUARD_PID=${2:?--until-exit-of needs a process id} ;;
    *) die "unknown argument: $1" ;;
  esac
  shift 2
done

case $command in
  up | down | stop-apiserver | start-apiserver)
    umask 077
    mkdir -p "$DIR"
    DIR=$(cd "$DIR" && pwd)
    exec 9>"$DIR/.lock"
    flock 9
    "${command/-/_}"
    ;;
  status)
    DIR=$(cd "$DIR" 2>/dev/null && pwd) || die "no cluster in that folder"
    status
    ;;
  help | --help | -h) usage ;;
  *) die "unknown command: $command (see tools/cluster.sh help)" ;;
esac
