#!/usr/bin/env bash
# Checks the Helm chart and the examples against a real API server:
# lint, bad values, documentation of values, rights, every object under every file of charts/tokenward/ci, and what an
# installed release may and may not do.
#
#   tests/chart.sh        starts a control plane of its own in .run/chart and takes it down at the end
#   TOKENWARD_TEST_KUBECONFIG=F tests/chart.sh
#                         uses that cluster, which must not be in use: the chart is installed and uninstalled there.
#                         KUBECONFIG alone is ignored, because it may point to a cluster somebody works with.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
PATH=${KUBEBUILDER_ASSETS:+$KUBEBUILDER_ASSETS:}$PWD/.tools/bin:$PATH

CHART=charts/tokenward
RELEASE=tokenward
NAMESPACE=tokenward-chart-test
NAMESPACES=("$NAMESPACE" team-a team-b checkout-staging checkout-production argocd flux-system)
WORK=$(mktemp -d)
OWN_CLUSTER=
passed=0
failed=0

ok() {
  passed=$((passed + 1))
  printf '  ok    %s\n' "$1"
}

# not_ok WHAT DETAIL
not_ok() {
  failed=$((failed + 1))
  printf '  FAIL  %s\n' "$1"
  printf '%s\n' "${2:-}" | sed 's/^/          /'
}

# check WHAT COMMAND…: passes if the command succeeds; shows its output if it does not.
check() {
  local what=$1 output
  shift
  if output=$("$@" 2>&1); then ok "$what"; else not_ok "$what" "$output"; fi
}

# same WHAT EXPECTED ACTUAL
same() {
  if [[ $2 == "$3" ]]; then
    ok "$1"
  else
    not_ok "$1" "$(diff <(printf '%s\n' "$2") <(printf '%s\n' "$3") || true)"
  fi
}

section() { printf '%s\n' "$*"; }

# As for the oldest Kubernetes that the chart admits.
render() { helm template "$RELEASE" "$CHART" --namespace "$NAMESPACE" --kube-version 1.30.0 "$@"; }

stop() {
  local code=$?
  if [[ -n $OWN_CLUSTER ]]; then
    tools/cluster.sh down --dir .run/chart >/dev/null || true
  elif [[ -s $WORK/created ]]; then
    xargs -r kubectl delete --ignore-not-found --timeout=60s <"$WORK/created" >/dev/null 2>&1 || true
  fi
  rm -rf "$WORK"
  exit "$code"
}
trap stop EXIT

# --- Without a cluster -----------------------------------------------------------------------------------------------

lint() {
  local values
  section "helm lint"
  for values in "$CHART"/ci/*.yaml; do
    check "$(basename "$values")" helm lint --strict --quiet --kube-version 1.30.0 --namespace "$NAMESPACE" --values "$values" "$CHART"
  done
}

# bad SET EXPECTED: a value that has to be refused, and what the message has to say.
bad() {
  local output
  if output=$(render --set-json "$1" 2>&1); then
    not_ok "refused: $1" "it was rendered"
  elif [[ $output == *$2* ]]; then
    ok "refused: $1"
  else
    not_ok "refused: $1" "expected in the message: $2"$'\n'"$output"
  fi
}

bad_values() {
  section "bad values are refused, by name"
  bad 'tokenPrefx="twd"' "additional properties 'tokenPrefx' not allowed"
  bad 'controller={"replica":3}' "at '/controller': additional properties 'replica' not allowed"
  bad 'controller.leaderElection={"lease":"x"}' "at '/controller/leaderElection': additional properties 'lease' not allowed"
  bad 'controller.resources={"request":{"cpu":"1"}}' "at '/controller/resources': additional properties 'request' not allowed"
  bad 'tokenPrefix="TWD"' "at '/tokenPrefix': 'TWD' does not match pattern"
  bad 'tokenPrefix="acme__live"' "at '/tokenPrefix': 'acme__live' does not match pattern"
  bad 'tokenPrefix="a23456789012345678901"' "at '/tokenPrefix': maxLength: got 21, want 20"
  bad 'namespaces="team-a"' "at '/namespaces': got string, want array"
  bad 'namespaces=["Team"]' "at '/namespaces/0': 'Team' does not match pattern"
  bad 'namespaces=["a","a"]' "at '/namespaces': items at 0 and 1 are equal"
  bad 'ownership.ownerKeys=[]' "at '/ownership/ownerKeys': minItems: got 0, want 1"
  bad 'ownership.ownerKeys=["a team"]' "at '/ownership/ownerKeys/0': 'a team' does not match pattern"
  bad 'ownership.defaultOwner="a\nb"' "at '/ownership/defaultOwner'"
  bad 'metrics.labels=["cost center"]' "at '/metrics/labels/0': 'cost center' does not match pattern"
  bad 'metrics.perToken="yes"' "at '/metrics/perToken': got string, want boolean"
  bad 'log.level="verbose"' "at '/log/level': value must be one of 'error', 'warn', 'info', 'debug', 'trace'"
  bad 'log.format="xml"' "at '/log/format': value must be one of 'json', 'text'"
  bad 'image.digest="4f5c"' "at '/image/digest': '4f5c' does not match pattern"
  bad 'image.repository="ghcr.io/tokenward/tokenward:1.0"' "at '/image/repository'"
  bad 'image.pullPolicy="Sometimes"' "at '/image/pullPolicy': value must be one of 'Always', 'IfNotPresent', 'Never'"
  bad 'imagePullSecrets=["registry"]' "at '/imagePullSecrets/0': got string, want object"
  bad 'commonLabels={"app.kubernetes.io/name":"x"}' "commonLabels: app.kubernetes.io/name is set by the chart; choose another key"
  bad 'commonLabels={"a team":"x"}' "at '': invalid propertyName 'a team'"
  bad 'networkPolicy.apiServer.ports=[]' "at '/networkPolicy/apiServer/ports': minItems: got 0, want 1"
  bad 'networkPolicy.apiServer.to=[{"cidr":"10.0.0.1/32"}]' "additional properties 'cidr' not allowed"
  bad 'networkPolicy.dns.ports=[70000]' "at '/networkPolicy/dns/ports/0': maximum: got 70,000, want 65,535"
  bad 'controller.concurrency=0' "at '/controller/concurrency': minimum: got 0, want 1"
  bad 'controller.resync="12 hours"' "at '/controller/resync': '12 hours' does not match pattern"
  bad 'controller.resync=12' "at '/controller/resync': got number, want string"
  bad 'controller.resync=""' "at '/controller/resync': minLength: got 0, want 2"
  bad 'controller.adminPort=80' "at '/controller/adminPort': minimum: got 80, want 1,024"
  bad 'controller.adminAddress="::"' "at '/controller/adminAddress': '::' does not match pattern"
  bad 'controller.podDisruptionBudget.maxUnavailable=0' "at '/controller/podDisruptionBudget/maxUnavailable': minimum: got 0, want 1"
  bad 'controller.extraEnv=[{"name":"POD_NAME","value":"x"}]' "controller.extraEnv: POD_NAME is set by the chart"
  bad 'controller.leaderElection.leaseDuration="10s"' "leaseDuration (10s) must be longer than renewDeadline (10s)"
  bad 'controller.leaderElection.retryPeriod="1m"' "renewDeadline (10s) must be longer than retryPeriod (1m)"
  bad 'controller.shutdownGrace="1m"' "terminationGracePeriodSeconds (30) must be longer than shutdownGrace (1m)"
}

# leaves all|uncommented: the dotted path of every value in values.yaml, which is indented by two spaces a level; with
# "uncommented" only those without a comment right above. A list in block style counts as one value.
leaves() {
  awk -v wanted="$1" '
    list && match($0, /[^ ]/) - 1 > list {next}
    {list = 0}
    /^ *#/ {comment = 1; next}
    match($0, /^ *[A-Za-z]+:/) {
      depth = (match($0, /[^ ]/) - 1) / 2
      key[depth] = $1
      path = ""
      for (i = 0; i <= depth; i++) path = path (i ? "." : "") substr(key[i], 1, length(key[i]) - 1)
      if (NF == 1) {opened = path; openedComment = comment; openedAt = depth * 2}
      else if (wanted == "all" || !comment) print path
    }
    /^ *- / {
      list = openedAt
      if (wanted == "all" || !openedComment) print opened
    }
    {comment = 0}' "$CHART/values.yaml"
}

documentation() {
  local path missing=''
  section "documentation"
  same "every value has a comment" '' "$(leaves uncommented)"
  while read -r path; do
    grep -qF "| \`$path\` |" "$CHART/README.md" || missing+="$path "
  done < <(leaves all)
  same "every value is in the chart's README" '' "$missing"
  missing=''
  while read -r path; do
    leaves all | grep -qxF "$path" || missing+="$path "
  done < <(sed '1,/^## Values/d' "$CHART/README.md" | grep -oE '^\| [^A-Za-z][A-Za-z.]+[^A-Za-z] \|' | tr -d '|` ')
  same "the chart's README names no value that does not exist" '' "$missing"
  same "argocd-cm.yaml holds health.lua" "$(cat examples/gitops/argocd/health.lua)" \
    "$(sed -n '/resource.customizations.health/,$p' examples/gitops/argocd/argocd-cm.yaml | sed '1d; s/^    //')"
}

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

rights_are_minimal() {
  local cluster namespaced people
  section "rights"
  cluster=$(render --show-only templates/rbac.yaml)
  namespaced=$(render --set 'namespaces={team-a,team-b}' --show-only templates/rbac.yaml)
  people=$(render --show-only templates/rbac-people.yaml)
  same "cluster-wide: exactly these" "ClusterRole tokenward-controller: [apitokens] [get, list, watch]
ClusterRole tokenward-controller: [apitokens/status] [update]
ClusterRole tokenward-controller: [secrets] [get, list, watch, create, patch]
ClusterRole tokenward-controller: [events] [create, patch]
ClusterRole tokenward-controller: [namespaces] [get, list, watch]
Role $NAMESPACE/tokenward-controller-leader-election: [leases] [create]
Role $NAMESPACE/tokenward-controller-leader-election: [leases] named [tokenward-controller] [get, update]" \
    "$(rights <<<"$cluster")"
  same "namespaced: the same in each namespace, and the namespace itself" "$(
    for namespace in team-a team-b; do
      printf 'Role %s/tokenward-controller: %s\n' \
        $namespace '[apitokens] [get, list, watch]' \
        $namespace '[apitokens/status] [update]' \
        $namespace '[secrets] [get, list, watch, create, patch]' \
        $namespace '[events] [create, patch]' \
        $namespace "[namespaces] named [$namespace] [get]"
    done
    printf "Role $NAMESPACE/tokenward-controller-leader-election: %s\n" \
      '[leases] [create]' '[leases] named [tokenward-controller] [get, update]'
  )" "$(rights <<<"$namespaced")"
  same "people: ApiTokens, never their status" "ClusterRole tokenward-apitokens-view: [apitokens] [get, list, watch]
ClusterRole tokenward-apitokens-edit: [apitokens] [get, list, watch, create, update, patch, delete]
ClusterRole tokenward-apitokens-admin: [apitokens] [get, list, watch, create, update, patch, delete, deletecollection]" \
    "$(rights <<<"$people")"
  same "no wildcard, no delete, no impersonation for the controller" '' \
    "$(printf '%s\n' "$cluster" "$namespaced" | grep -v '^ *#' | grep -E "\*|delete|impersonate|escalate|bind\b" || true)"
  same "no right without its reason above it" '' "$(printf '%s\n' "$cluster" "$namespaced" "$people" |
    awk '/^ *- apiGroups:/ && last !~ /^ *#/ {print} {last = $0}')"
  same "namespaced: nothing cluster-wide but the CRD and the roles of people" \
    "ClusterRole=3 CustomResourceDefinition=1" \
    "$(render --set 'namespaces={team-a}' | kinds | tr ' ' '\n' | grep -E '^(Cluster|Custom)' | paste -sd' ')"
  same "namespaced.yaml: nothing cluster-wide but the CRD" "CustomResourceDefinition=1" \
    "$(render --values "$CHART/ci/namespaced-values.yaml" | kinds | tr ' ' '\n' | grep -E '^(Cluster|Custom)' | paste -sd' ')"
  same "minimal-values.yaml: a Deployment and a Service" "Deployment=1 Service=1" \
    "$(render --values "$CHART/ci/minimal-values.yaml" | kinds)"
}

crds_stay() {
  local keep='helm.sh/resource-policy: keep'
  section "CRDs"
  same "kept on uninstall by default" 1 "$(render --show-only templates/crds.yaml | grep -c "$keep")"
  same "not kept with crds.keep=false" 0 \
    "$(render --set crds.keep=false --show-only templates/crds.yaml | grep -c "$keep" || true)"
  same "not rendered with crds.install=false" 0 \
    "$(render --set crds.install=false | grep -c 'kind: CustomResourceDefinition' || true)"
}

# --- With a cluster --------------------------------------------------------------------------------------------------

start_cluster() {
  if [[ -n ${TOKENWARD_TEST_KUBECONFIG:-} ]]; then
    export KUBECONFIG=$TOKENWARD_TEST_KUBECONFIG
  else
    OWN_CLUSTER=1
    tools/cluster.sh up --dir .run/chart --until-exit-of $$ >/dev/null
    export KUBECONFIG=$PWD/.run/chart/kubeconfig
  fi
  if kubectl get crd apitokens.tokenward.dev >/dev/null 2>&1; then
    printf 'This cluster has ApiTokens already; the chart is tested in an empty one.\n' >&2
    return 1
  fi
  local namespace
  for namespace in "${NAMESPACES[@]}"; do
    kubectl create namespace "$namespace" >/dev/null 2>&1 && echo "namespace/$namespace" >>"$WORK/created"
  done
  # Warnings about pod security show up on Deployments, and any warning fails a check.
  kubectl label namespace "$NAMESPACE" --overwrite pod-security.kubernetes.io/warn=restricted \
    pod-security.kubernetes.io/enforce=restricted >/dev/null
  # Kinds of other projects; those that the cluster has already are left alone.
  { kubectl create --filename tests/fixtures/foreign-crds.yaml --output name 2>/dev/null || true; } >>"$WORK/created"
  kubectl wait --for=condition=Established --timeout=30s --filename tests/fixtures/foreign-crds.yaml >/dev/null
}

# accepted WHAT FLAG…: the API server takes every object that the flags name, strictly and without a warning.
accepted() {
  local what=$1 output code=0
  shift
  output=$(kubectl apply --server-side --force-conflicts --dry-run=server --validate=strict "$@" 2>&1) || code=$?
  if ((code)) || grep -q '^Warning' <<<"$output"; then
    not_ok "$what" "$(grep -v 'serverside-applied' <<<"$output")"
  else
    ok "$what ($(grep -c 'serverside-applied' <<<"$output") objects)"
  fi
}

server_accepts() {
  local values path
  section "the API server accepts every object"
  for values in "$CHART"/ci/*.yaml; do
    render --values "$values" >"$WORK/rendered.yaml"
    accepted "$(basename "$values")" --filename "$WORK/rendered.yaml"
  done
  section "the API server accepts the examples"
  kubectl apply --server-side --filename "$CHART/crd" >/dev/null
  kubectl get --filename "$CHART/crd" --output name >>"$WORK/created"
  kubectl wait --for=condition=Established --timeout=30s --filename "$CHART/crd" >/dev/null
  for path in examples/*.yaml; do
    accepted "$path" --filename "$path" --namespace "$NAMESPACE"
  done
  # These name their namespaces.
  for path in examples/gitops/argocd/*.yaml examples/gitops/flux/*.yaml; do
    accepted "$path" --filename "$path"
  done
  for path in examples/gitops/kustomize/overlays/*/; do
    accepted "$path" --kustomize "$path"
  done
  kubectl delete --filename "$CHART/crd" --wait=true --timeout=60s >/dev/null
}

# may yes|no VERB RESOURCE[/NAME] NAMESPACE: whether the controller's account has that right.
may() {
  local answer
  answer=$(kubectl auth can-i "$2" "${3%%:*}" --subresource="$([[ $3 != *:* ]] || echo "${3#*:}")" --namespace "$4" \
    --as "system:serviceaccount:$NAMESPACE:$RELEASE-controller" 2>/dev/null || true)
  [[ $answer == "$1" ]] || printf 'can-i %s %s in %s: %s, expected %s\n' "$2" "$3" "$4" "$answer" "$1"
}

as_controller() { kubectl --as "system:serviceaccount:$NAMESPACE:$RELEASE-controller" "$@"; }

secret_manifest() {
  cat <<YAML
apiVersion: v1
kind: Secret
metadata: {name: chart-test, namespace: $1}
stringData: {token: $2}
YAML
}

# delivers NAMESPACE: the rights suffice to create a Secret by server-side apply, to change it, and to read the namespace.
delivers() {
  secret_manifest "$1" first | as_controller apply --server-side --field-manager tokenward --filename - &&
    secret_manifest "$1" second | as_controller apply --server-side --field-manager tokenward --filename - &&
    as_controller get namespace "$1" --output name &&
    kubectl delete secret chart-test --namespace "$1"
}

elects() {
  kubectl create --as "system:serviceaccount:$NAMESPACE:$RELEASE-controller" --filename - <<YAML &&
apiVersion: coordination.k8s.io/v1
kind: Lease
metadata: {name: $RELEASE-controller, namespace: $NAMESPACE}
spec: {holderIdentity: one, leaseDurationSeconds: 15}
YAML
    as_controller get lease "$RELEASE-controller" --namespace "$NAMESPACE" --output yaml |
    sed 's/holderIdentity: one/holderIdentity: two/' | as_controller replace --filename -
}

install() { helm upgrade --install "$RELEASE" "$CHART" --namespace "$NAMESPACE" "$@"; }

# A later version of the chart, whose CRD has one more category.
upgrade_crd() {
  cp -r "$CHART" "$WORK/later"
  sed -i -E 's/^( *- )tokenward$/&\n\1later/' "$WORK"/later/crd/*.yaml
  helm upgrade "$RELEASE" "$WORK/later" --namespace "$NAMESPACE" &&
    kubectl get crd apitokens.tokenward.dev --output jsonpath='{.spec.names.categories}' | grep later
}

released() {
  local out=default # a namespace that the release is not told about
  section "an installed release, cluster-wide"
  check "helm install" install
  check "the CRD is served" kubectl wait --for=condition=Established --timeout=30s crd/apitokens.tokenward.dev
  check "delivers anywhere" delivers $out
  check "takes and renews the Lease" elects
  same "may do what it needs and nothing else" '' "$(
    may yes list apitokens.tokenward.dev $out
    may yes watch secrets $out
    may yes watch namespaces $out
    may yes update apitokens.tokenward.dev:status $out
    may yes create events.events.k8s.io $out
    may no update apitokens.tokenward.dev $out
    may no patch apitokens.tokenward.dev $out
    may no delete apitokens.tokenward.dev $out
    may no update apitokens.tokenward.dev:finalizers $out
    may no delete secrets $out
    may no update secrets $out
    may no get leases.coordination.k8s.io/other "$NAMESPACE"
    may no delete "leases.coordination.k8s.io/$RELEASE-controller" "$NAMESPACE"
    may no create leases.coordination.k8s.io $out
    may no get configmaps "$NAMESPACE"
    may no get pods "$NAMESPACE"
  )"
  check "helm upgrade upgrades the CRD" upgrade_crd
  section "the same release, changed to two namespaces"
  check "helm upgrade" install --set 'namespaces={team-a,team-b}'
  check "delivers in team-a" delivers team-a
  check "delivers in team-b" delivers team-b
  same "may do nothing anywhere else" '' "$(
    may yes list secrets team-a
    may yes update apitokens.tokenward.dev:status team-b
    may no list secrets $out
    may no get secrets $out
    may no list apitokens.tokenward.dev $out
    may no create secrets $out
    may no list namespaces $out
    may no list secrets "$NAMESPACE"
  )"
  same "may not read another namespace" '' "$(as_controller get namespace default --output name 2>/dev/null || true)"
  section "uninstalled"
  check "helm uninstall" helm uninstall "$RELEASE" --namespace "$NAMESPACE" --wait
  check "the CRD stays" kubectl get crd apitokens.tokenward.dev
  same "nothing else stays" '' "$(
    kubectl get clusterroles,clusterrolebindings,roles,rolebindings,serviceaccounts,services,deployments,networkpolicies,poddisruptionbudgets \
      --all-namespaces --selector "app.kubernetes.io/instance=$RELEASE" --output name
  )"
  check "installs again over the CRD that stayed" install --set crds.keep=false
  check "helm uninstall with crds.keep=false" helm uninstall "$RELEASE" --namespace "$NAMESPACE" --wait
  same "takes the CRD along" '' "$(kubectl get crd apitokens.tokenward.dev --ignore-not-found --output name)"
}

[[ -n ${TOKENWARD_TEST_KUBECONFIG:-} ]] || tools/build.sh helm kubectl
lint
bad_values
documentation
rights_are_minimal
crds_stay
start_cluster
server_accepts
released

printf '%d checks passed, %d failed\n' "$passed" "$failed"
((failed == 0))
