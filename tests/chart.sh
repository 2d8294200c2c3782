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
CRDS=$(find "$CHART/crd" -name '*.yaml' | wc -l)
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

# shellcheck source=chart/rendered.sh
source tests/chart/rendered.sh

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
  local set expected
  section "bad values are refused, by name"
  while IFS=$'\t' read -r set expected; do
    [[ $set == '#'* ]] || bad "$set" "$expected"
  done <tests/chart/bad-values.tsv
  if render --set gate.enabled=false --set ledger.enabled=true >"$WORK/output" 2>&1; then
    not_ok "refused: a ledger that nobody may report to" "it was rendered"
  else
    check "refused: a ledger that nobody may report to" grep -q 'nobody may report to the ledger' "$WORK/output"
  fi
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

crds_stay() {
  local keep='helm.sh/resource-policy: keep'
  section "CRDs"
  same "kept on uninstall by default" "$CRDS" "$(render --show-only templates/crds.yaml | grep -c "$keep")"
  same "not kept with crds.keep=false" 0 \
    "$(render --set crds.keep=false --show-only templates/crds.yaml | grep -c "$keep" || true)"
  same "not rendered with crds.install=false" 0 \
    "$(render --set crds.install=false | grep -c 'kind: CustomResourceDefinition' || true)"
}

policies() {
  local kind=admissionregistration.k8s.io/v1/ValidatingAdmissionPolicy file=templates/admissionpolicies.yaml
  local names="name: $NAMESPACE.tokenward"
  section "admission policies"
  same "three with their bindings, where the API server has them" 6 \
    "$(render --api-versions $kind --show-only $file | grep -cE "^  $names.(status-writers|requests|size)$")"
  same "none where it is not known to have them" 0 "$(render | grep -c 'kind: ValidatingAdmissionPolicy$' || true)"
  same "none by themselves in some namespaces" 0 \
    "$(render --api-versions $kind --set 'namespaces={team-a}' | grep -c 'kind: ValidatingAdmissionPolicy$' || true)"
  same "limited to the namespaces of the release" 3 "$(render --set admissionPolicies.enabled=true \
    --set 'namespaces={team-a,team-b}' --show-only $file | grep -cF 'values: ["team-a","team-b"]')"
}

# What "secrets" allows stands in the rules of the definition and in the arguments of the controller.
allowed_secrets() {
  local rendered
  section "what Secrets may be"
  rendered=$(render --set-json 'secrets={"types":["example.com/a"],"names":["b-kubeconfig"],"keys":["helm.sh/c","tekton.dev/d"]}')
  same "the controller is told" '--secret-keys=helm.sh/c,tekton.dev/d --secret-names=b-kubeconfig --secret-types=example.com/a' \
    "$(grep -oE -- '--secret-[a-z]+=.*' <<<"$rendered" | paste -sd' ')"
  # Once in each rule of labels and annotations, and again in the message that names the key.
  same "so is the definition" "4 1 1" "$(tr -d "\n'" <<<"$rendered" | tr -s ' ' | awk '{
    print gsub(/[+]secret-keys, tekton.dev\/d, helm.sh\/c/, "") " " gsub(/[+]secret-names, b-kubeconfig/, "") " " \
      gsub(/[+]secret-types, example.com\/a/, "")
  }')"
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

# crds_served: both kinds can be asked for. Their definitions are established a moment before.
crds_served() {
  kubectl wait --for=condition=Established --timeout=60s --filename "$CHART/crd" || return
  for _ in {1..300}; do
    if kubectl get apitokens.tokenward.dev,tokenusages.tokenward.dev --all-namespaces >/dev/null 2>&1; then return; fi
    sleep 0.2
  done
  printf 'established, but not served\n' >&2
  return 1
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
  crds_served >/dev/null
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

# as ROLE ARGUMENT…: kubectl under the ServiceAccount of the controller or of the gate.
as() { kubectl --as "system:serviceaccount:$NAMESPACE:$RELEASE-$1" "${@:2}"; }

# may ROLE yes|no VERB RESOURCE[.GROUP][/NAME][:SUBRESOURCE] NAMESPACE: whether that account has that right. As "kubectl auth
# can-i", which answers "no" to every question about a kind that is not served at the moment.
may() {
  local kind=${4%%[/:]*} name='' group='' allowed
  [[ $4 != */* ]] || name=${4#*/}
  [[ $kind != *.* ]] || group=${kind#*.}
  allowed=$(
    kubectl create --output 'jsonpath={.status.allowed}' --filename - <<YAML
apiVersion: authorization.k8s.io/v1
kind: SubjectAccessReview
spec:
  user: system:serviceaccount:$NAMESPACE:$RELEASE-$1
  groups: [system:serviceaccounts, "system:serviceaccounts:$NAMESPACE", system:authenticated]
  resourceAttributes:
    verb: $3
    group: "$group"
    resource: ${kind%%.*}
    subresource: "$([[ $4 != *:* ]] || echo "${4#*:}")"
    name: "$name"
    namespace: "$5"
YAML
  )
  [[ $2=$allowed == @(yes=true|no=false) ]] || printf '%s: %s %s in %s: %s, expected %s\n' "$1" "$3" "$4" "$5" "$allowed" "$2"
}

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
  secret_manifest "$1" first | as controller apply --server-side --field-manager tokenward --filename - &&
    secret_manifest "$1" second | as controller apply --server-side --field-manager tokenward --filename - &&
    as controller get namespace "$1" --output name &&
    kubectl delete secret chart-test --namespace "$1"
}

elects() {
  as controller create --filename - <<YAML &&
apiVersion: coordination.k8s.io/v1
kind: Lease
metadata: {name: $RELEASE-controller, namespace: $NAMESPACE}
spec: {holderIdentity: one, leaseDurationSeconds: 15}
YAML
    as controller get lease "$RELEASE-controller" --namespace "$NAMESPACE" --output yaml |
    sed 's/holderIdentity: one/holderIdentity: two/' | as controller replace --filename -
}

# The gate follows the one Lease by its name, as a watch and a list, and sees no other.
follows_the_lease() {
  local leases=/apis/coordination.k8s.io/v1/namespaces/$NAMESPACE/leases
  as gate get --raw "$leases?fieldSelector=metadata.name%3D$RELEASE-controller" | grep -q '"holderIdentity":"two"' &&
    as gate get --raw "$leases?fieldSelector=metadata.name%3D$RELEASE-controller&watch=true&timeoutSeconds=5" |
    grep -q '"type":"ADDED"'
}

# records NAMESPACE: the rights suffice to create a TokenUsage beside its ApiToken, and to write its status; with the ApiToken
# it goes. A plain owner reference: one that blocks deletion would need a right on the ApiToken's finalizers.
records() {
  local namespace=$1 uid
  kubectl create --namespace "$namespace" --filename examples/minimal.yaml >/dev/null
  uid=$(kubectl get apitokens --namespace "$namespace" --output 'jsonpath={.items[0].metadata.uid}')
  as controller create --validate=false --filename - <<YAML &&
apiVersion: tokenward.dev/v1alpha1
kind: TokenUsage
metadata:
  name: minimal
  namespace: $namespace
  ownerReferences: [{apiVersion: tokenward.dev/v1alpha1, kind: ApiToken, name: minimal, uid: $uid}]
spec: {}
YAML
    as controller get tokenusage minimal --namespace "$namespace" --output yaml |
    sed '$a status: {requests: 3}' | as controller replace --validate=false --subresource status --filename - &&
    [[ $(kubectl get tokenusage minimal --namespace "$namespace" --output 'jsonpath={.status.requests}') == 3 ]] &&
    kubectl delete --namespace "$namespace" --filename examples/minimal.yaml &&
    kubectl wait tokenusage/minimal --namespace "$namespace" --for=delete --timeout=180s
}

# only_the_controller NAMESPACE: an administrator, who may do everything, may not write a status; the policy comes into force a
# moment after it was created.
only_the_controller() {
  local namespace=$1 said
  kubectl create --namespace "$namespace" --filename examples/minimal.yaml >/dev/null
  for _ in {1..100}; do
    said=$(kubectl patch apitoken minimal --namespace "$namespace" --subresource status --type merge \
      --patch '{"status": {"health": "Healthy"}}' 2>&1) || break
    sleep 0.2
  done
  as controller get apitoken minimal --namespace "$namespace" --output yaml |
    sed '$a status: {health: Healthy}' | as controller replace --validate=false --subresource status --filename - &&
    kubectl delete --namespace "$namespace" --filename examples/minimal.yaml &&
    grep -q 'only the operator writes apitokens/status' <<<"$said"
}

# identified AUDIENCE: whom the controller takes a token of the gate for, made as the projected volume's is.
identified() {
  as controller create --validate=false --output 'jsonpath={.status.user.username}' --filename - <<YAML
apiVersion: authentication.k8s.io/v1
kind: TokenReview
spec:
  token: $(kubectl create token "$RELEASE-gate" --namespace "$NAMESPACE" --audience "$1" --duration 1h)
  audiences: [tokenward-ledger]
YAML
}

install() { helm upgrade --install "$RELEASE" "$CHART" --namespace "$NAMESPACE" "$@"; }

# disown_crds HOW: the CRDs as they are when somebody else made them.
disown_crds() {
  if [[ $1 == "applied before Helm" ]]; then
    kubectl label --filename "$CHART/crd" app.kubernetes.io/managed-by- >/dev/null
    kubectl annotate --filename "$CHART/crd" meta.helm.sh/release-name- meta.helm.sh/release-namespace- >/dev/null
  else
    kubectl create --filename "$CHART/crd" >/dev/null 2>&1 || true
    kubectl label --filename "$CHART/crd" --overwrite app.kubernetes.io/managed-by=Helm >/dev/null
    kubectl annotate --filename "$CHART/crd" --overwrite meta.helm.sh/release-name=former >/dev/null
    kubectl annotate --filename "$CHART/crd" --overwrite meta.helm.sh/release-namespace=elsewhere >/dev/null
  fi
}

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
  check "the CRDs are served" crds_served
  check "delivers anywhere" delivers $out
  check "takes and renews the Lease" elects
  check "records use anywhere" records $out
  check "a policy lets the controller write a status and nobody else" only_the_controller $out
  same "may do what it needs and nothing else" '' "$(
    may controller yes list apitokens.tokenward.dev $out
    may controller yes watch secrets $out
    may controller yes watch namespaces $out
    may controller yes update apitokens.tokenward.dev:status $out
    may controller yes create events.events.k8s.io $out
    may controller no update apitokens.tokenward.dev $out
    may controller no patch apitokens.tokenward.dev $out
    may controller no delete apitokens.tokenward.dev $out
    may controller no update apitokens.tokenward.dev:finalizers $out
    may controller no delete secrets $out
    may controller no update secrets $out
    may controller no get leases.coordination.k8s.io/other "$NAMESPACE"
    may controller no delete "leases.coordination.k8s.io/$RELEASE-controller" "$NAMESPACE"
    may controller no create leases.coordination.k8s.io $out
    may controller no get configmaps "$NAMESPACE"
    may controller no get pods "$NAMESPACE"
    may controller yes get tokenusages.tokenward.dev $out
    may controller yes create tokenusages.tokenward.dev $out
    may controller yes update tokenusages.tokenward.dev:status $out
    may controller yes update tokenusages.tokenward.dev $out
    may controller no list tokenusages.tokenward.dev $out
    may controller no delete tokenusages.tokenward.dev $out
    may controller yes create tokenreviews.authentication.k8s.io ''
  )"
  same "the ledger knows a gate by its token" "system:serviceaccount:$NAMESPACE:$RELEASE-gate" "$(identified tokenward-ledger)"
  same "and refuses one that was made for something else" '' "$(identified something-else)"
  check "the gate follows the Lease" follows_the_lease
  same "the gate may read ApiTokens and the one Lease, and nothing else" '' "$(
    may gate yes get apitokens.tokenward.dev $out
    may gate yes list apitokens.tokenward.dev $out
    may gate yes watch apitokens.tokenward.dev $out
    may gate yes watch "leases.coordination.k8s.io/$RELEASE-controller" "$NAMESPACE"
    may gate no update "leases.coordination.k8s.io/$RELEASE-controller" "$NAMESPACE"
    may gate no list leases.coordination.k8s.io "$NAMESPACE"
    may gate no get leases.coordination.k8s.io/other "$NAMESPACE"
    may gate no get leases.coordination.k8s.io $out
    for verb in create update patch delete; do may gate no $verb apitokens.tokenward.dev $out; done
    may gate no update apitokens.tokenward.dev:status $out
    for verb in get list watch create update patch delete; do
      may gate no $verb secrets $out
      may gate no $verb secrets "$NAMESPACE"
      may gate no $verb tokenusages.tokenward.dev $out
    done
    may gate no create tokenreviews.authentication.k8s.io ''
    may gate no create serviceaccounts:token "$NAMESPACE"
    may gate no create events.events.k8s.io $out
    may gate no list namespaces $out
    may gate no list pods "$NAMESPACE"
  )"
  check "helm upgrade upgrades the CRD" upgrade_crd
  section "the same release, changed to two namespaces"
  check "helm upgrade" install --set 'namespaces={team-a,team-b}' --set 'gate.introspection.callers={team-a/orders-api}'
  check "delivers in team-a" delivers team-a
  check "delivers in team-b" delivers team-b
  check "records use in team-a" records team-a
  same "may do nothing anywhere else" '' "$(
    may controller yes list secrets team-a
    may controller yes update apitokens.tokenward.dev:status team-b
    may controller no list secrets $out
    may controller no get secrets $out
    may controller no list apitokens.tokenward.dev $out
    may controller no create secrets $out
    may controller no list namespaces $out
    may controller no list secrets "$NAMESPACE"
    may controller yes update tokenusages.tokenward.dev:status team-a
    may controller no get tokenusages.tokenward.dev $out
    may gate yes watch apitokens.tokenward.dev team-a
    may gate yes watch apitokens.tokenward.dev team-b
    may gate no list apitokens.tokenward.dev $out
    may gate no get secrets team-a
    may gate yes create tokenreviews.authentication.k8s.io ''
  )"
  same "the ledger knows a gate still" "system:serviceaccount:$NAMESPACE:$RELEASE-gate" "$(identified tokenward-ledger)"
  same "may not read another namespace" '' "$(as controller get namespace default --output name 2>/dev/null || true)"
  check "a second release of the same name, in a namespace of its own" helm install "$RELEASE" "$CHART" \
    --namespace checkout-staging --values "$CHART/ci/namespaced-values.yaml" --set crds.install=false \
    --set 'namespaces={checkout-production}'
  check "is uninstalled" helm uninstall "$RELEASE" --namespace checkout-staging --wait
  section "uninstalled"
  check "helm uninstall" helm uninstall "$RELEASE" --namespace "$NAMESPACE" --wait
  check "the CRDs stay" kubectl get --filename "$CHART/crd"
  same "nothing else stays" '' "$(
    kubectl get clusterroles,clusterrolebindings,roles,rolebindings,serviceaccounts,services,deployments \
      --all-namespaces --selector "app.kubernetes.io/instance=$RELEASE" --output name
    kubectl get validatingadmissionpolicies,validatingadmissionpolicybindings \
      --selector "app.kubernetes.io/instance=$RELEASE" --output name
    kubectl get daemonsets,networkpolicies,poddisruptionbudgets,horizontalpodautoscalers \
      --all-namespaces --selector "app.kubernetes.io/instance=$RELEASE" --output name
  )"
  check "installs again over the CRDs that stayed" install
  for before in "applied before Helm" "kept from another release"; do
    helm uninstall "$RELEASE" --namespace "$NAMESPACE" --wait >/dev/null
    disown_crds "$before"
    same "CRDs $before are refused" refused "$(install >/dev/null 2>&1 || echo refused)"
    check "and taken over with --take-ownership" install --take-ownership --set crds.keep=false
    check "and upgraded from then on" install --set crds.keep=false
  done
  check "helm uninstall with crds.keep=false" helm uninstall "$RELEASE" --namespace "$NAMESPACE" --wait
  same "takes the CRDs along" '' "$(kubectl get --filename "$CHART/crd" --ignore-not-found --output name)"
}

[[ -n ${TOKENWARD_TEST_KUBECONFIG:-} ]] || tools/build.sh helm kubectl
lint
bad_values
documentation
rights_are_minimal
gate_and_ledger
crds_stay
policies
allowed_secrets
start_cluster
server_accepts
released

printf '%d checks passed, %d failed\n' "$passed" "$failed"
((failed == 0))
