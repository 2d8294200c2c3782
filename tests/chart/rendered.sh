# shellcheck shell=bash
# What tests/chart.sh, which sources this, checks in rendered YAML: rights, and that gate and ledger fit together.

# One line for each rule of each role in rendered YAML: kind namespace/name: resources [names] verbs.
rights() {
  awk '
    /^kind:/ {kind = $2; namespace = ""}
    /^metadata:/ {meta = 1} /^rules:/ {meta = 0}
    meta && /^  name:/ {name = $2}
    meta && /^  namespace:/ {namespace = $2}
    /apiGroups:/ {names = ""}
    /resources:/ {resources = $0; sub(/.*resources: /, "", resources)}
    /resourceNames:/ {names = $0; sub(/.*resourceNames: /, " named ", names)}
    /verbs:/ {verbs = $0; sub(/.*verbs: /, "", verbs); print kind " " (namespace ? namespace "/" : "") name ": " resources names " " verbs}'
}

kinds() { sed -n 's/^kind: //p' | sort | uniq -c | awk '{print $2 "=" $1}' | paste -sd' '; }

# controller_rights PLACE NAMES: the rules of the controller in a namespace, or in all, but for those on Namespaces.
controller_rights() {
  printf "$1: %s\n" '[apitokens] [get, list, watch]' '[apitokens/status] [update]' \
    '[secrets] [get, list, watch, create, patch]' '[tokenusages] [get, create, update]' '[tokenusages/status] [update]' \
    '[events] [create]' "$2"
}

rights_are_minimal() {
  local cluster namespaced people gate everything namespace
  section "rights"
  cluster=$(render --show-only templates/rbac.yaml)
  namespaced=$(render --set 'namespaces={team-a,team-b}' --show-only templates/rbac.yaml)
  people=$(render --show-only templates/rbac-people.yaml)
  # A TokenReview is in no namespace: this right cannot be a Role's, so this ClusterRole is there in namespaced mode, too.
  local reviews="ClusterRole $NAMESPACE:tokenward-controller-tokenreviews: [tokenreviews] [create]"
  local lease="Role $NAMESPACE/tokenward-controller-leader-election: [leases] [create]
Role $NAMESPACE/tokenward-controller-leader-election: [leases] named [tokenward-controller] [get, update]"
  same "controller, cluster-wide: exactly these" "$(
    controller_rights 'ClusterRole tokenward-controller' '[namespaces] [get, list, watch]'
    printf '%s\n' "$reviews" "$lease"
  )" "$(rights <<<"$cluster")"
  same "controller, namespaced: the same in each namespace, and the namespace itself" "$(
    # Helm renders ClusterRoles first.
    printf '%s\n' "$reviews"
    for namespace in team-a team-b; do
      controller_rights "Role $namespace/tokenward-controller" "[namespaces] named [$namespace] [get]"
    done
    printf '%s\n' "$lease"
  )" "$(rights <<<"$namespaced")"
  gate=$(render --set 'gate.introspection.callers={team-a/api}' --show-only templates/gate-rbac.yaml)
  same "gate, cluster-wide: exactly these" "ClusterRole tokenward-gate: [apitokens] [get, list, watch]
Role $NAMESPACE/tokenward-gate-ledger: [leases] named [tokenward-controller] [get, list, watch]" \
    "$(render --show-only templates/gate-rbac.yaml | rights)"
  same "gate, namespaced, with introspection: exactly these" "ClusterRole $NAMESPACE:tokenward-gate-tokenreviews: [tokenreviews] [create]
Role team-a/tokenward-gate: [apitokens] [get, list, watch]
Role team-b/tokenward-gate: [apitokens] [get, list, watch]
Role $NAMESPACE/tokenward-gate-ledger: [leases] named [tokenward-controller] [get, list, watch]" \
    "$(render --set 'namespaces={team-a,team-b}' --set 'gate.introspection.callers={team-a/api}' \
      --show-only templates/gate-rbac.yaml | rights)"
  same "people: ApiTokens, never their status; usage only to read" "$(
    for namespace in view: edit:', create, update, patch, delete' admin:', create, update, patch, delete, deletecollection'; do
      printf "ClusterRole tokenward-apitokens-${namespace%%:*}: %s\n" \
        "[apitokens] [get, list, watch${namespace#*:}]" '[tokenusages] [get, list, watch]'
    done
  )" "$(rights <<<"$people")"
  everything=$(printf '%s\n' "$cluster" "$namespaced" "$gate")
  same "no wildcard, no delete, no impersonation" '' \
    "$(grep -v '^ *#' <<<"$everything" | grep -E "\*|delete|impersonate|escalate|bind\b" || true)"
  same "no right without its reason above it" '' "$(printf '%s\n' "$everything" "$people" |
    awk '/^ *- apiGroups:/ && last !~ /^ *#/ {print} {last = $0}')"
  same "namespaced: nothing cluster-wide but the CRDs, the roles of people and TokenReviews" \
    "ClusterRole=4 ClusterRoleBinding=1 CustomResourceDefinition=$CRDS" \
    "$(render --set 'namespaces={team-a}' | cluster_wide)"
  same "namespaced-values.yaml: nothing cluster-wide but the CRDs and TokenReviews of ledger and introspection" \
    "ClusterRole=2 ClusterRoleBinding=2 CustomResourceDefinition=$CRDS" \
    "$(render --values "$CHART/ci/namespaced-values.yaml" | cluster_wide)"
  same "namespaced, without ledger and introspection: nothing cluster-wide but the CRDs" "CustomResourceDefinition=$CRDS" \
    "$(render --values "$CHART/ci/namespaced-values.yaml" --set ledger.enabled=false --set 'gate.introspection.callers=null' |
      cluster_wide)"
  same "minimal-values.yaml: a Deployment and a Service" "Deployment=1 Service=1" \
    "$(render --values "$CHART/ci/minimal-values.yaml" | kinds)"
}

cluster_wide() { kinds | tr ' ' '\n' | grep -E '^(Cluster|Custom)' | paste -sd' '; }

# shown TEMPLATE PATTERN FLAG…: the lines with PATTERN of a rendered template, without indentation.
shown() {
  local template=$1 pattern=$2
  shift 2
  render --show-only "templates/$template.yaml" "$@" | grep -v '^ *#' | grep -E -- "$pattern" | sed 's/^ *\(- \)\?//' || true
}

# absent WHAT PATTERN FLAG…: no rendered line has PATTERN.
absent() {
  local what=$1 pattern=$2
  shift 2
  check "it renders" render "$@"
  same "$what" '' "$(render "$@" | grep -E -- "$pattern" || true)"
}

gate_and_ledger() {
  section "gate and ledger"
  set -- --set gate.serviceAccount.name=g --set controller.leaderElection.leaseName=l
  same "both sides agree on the gate's account" "--ledger-gates=$NAMESPACE/g serviceAccountName: g" \
    "$(shown deployment ledger-gates "$@") $(shown gate-workload serviceAccountName "$@")"
  same "both sides agree on the Lease" "--lease-name=l --lease-name=l resourceNames: [l]" \
    "$(shown deployment lease-name "$@") $(shown gate-workload lease-name "$@") $(shown gate-rbac resourceNames "$@")"
  same "both sides agree on the audience" "--ledger-audience=tokenward-ledger --ledger-audience=tokenward-ledger
audience: tokenward-ledger" "$(shown deployment -audience "$@") $(shown gate-workload '-audience|audience:' "$@")"
  same "both NetworkPolicies open the ledger's port" "port: ledger port: 9443" \
    "$(shown networkpolicy 'port: ledger') $(shown gate-networkpolicy 'port: 9443' --set ledger.port=9443)"
  absent "no ledger: no flag, no port, no right, no token for it" \
    '--ledger-|--usage-|tokenusages|tokenreviews|8443|serviceAccountToken|POD_IP|name: ledger' \
    --set ledger.enabled=false,crds.install=false --set rbac.aggregateTo.view=false \
    --set rbac.aggregateTo.edit=false,rbac.aggregateTo.admin=false
  absent "no gate: no object of it, and no ledger" 'component: gate|--ledger-|tokenreviews' --set gate.enabled=false
  same "a ledger for the gates of others" "--ledger-gates=edge/tokenward-gate" \
    "$(shown deployment ledger-gates --values "$CHART/ci/ledger-values.yaml")"
  same "with an autoscaler the number of replicas is its own" "" \
    "$(shown gate-workload 'replicas:' --set gate.autoscaling.enabled=true)"
  same "a DaemonSet comes without replicas and spread" "kind: DaemonSet" \
    "$(shown gate-workload '^kind:|replicas|topologySpread' --set gate.kind=DaemonSet)"
  same "a DaemonSet has no budget" "name: tokenward-controller" "$(
    render --set gate.kind=DaemonSet | awk '/^kind:/ {kind = $2} kind == "PodDisruptionBudget" && /^  name:/' | sed 's/^ *//'
  )"
  same "without TLS the Service says HTTP/2" "appProtocol: http
appProtocol: kubernetes.io/h2c" "$(shown gate-service appProtocol)"
  same "with TLS that is negotiated" "appProtocol: https
appProtocol: https" "$(shown gate-service appProtocol --set gate.tls.secretName=x)"
  same "two releases of one name share no object, in different namespaces" '' "$(
    for namespace in team-a team-b; do
      helm template "$RELEASE" "$CHART" --namespace "$namespace" --set "namespaces={$namespace}" --set crds.install=false \
        --set 'gate.introspection.callers={a/b}' --values "$CHART/ci/namespaced-values.yaml" --set "namespaces={$namespace}" |
        awk '/^kind:/ {kind = $2; namespace = name = ""} /^  name:/ && !name {name = $2} /^  namespace:/ && !namespace {namespace = $2}
          /^---/ {if (name) print kind, namespace, name; name = ""} END {print kind, namespace, name}'
    done | sort | uniq -d
  )"
}
