#!/usr/bin/env bash
# Builds the pinned tools that are missing or out of date into .tools/bin.
#
#   tools/build.sh            all of them
#   tools/build.sh NAME…      only these
#
# Each family is a Go module of its own under tools/, so that versions do not pull on each other. A binary is out of
# date when its module's go.mod or go.sum, the Go release or the way it is built has changed. KUBEBUILDER_ASSETS may name
# a folder of ready binaries: what is there is used, and not built.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

ALL=(etcd kube-apiserver kube-controller-manager kubectl helm crane kubeconform)

# One line per tool: the module's folder and the package in it.
recipe() {
  case $1 in
    etcd) echo etcd go.etcd.io/etcd/server/v3 ;;
    kube-apiserver | kube-controller-manager | kubectl) echo kubernetes "k8s.io/kubernetes/cmd/$1" ;;
    helm) echo helm helm.sh/helm/v3/cmd/helm ;;
    crane) echo crane github.com/google/go-containerregistry/cmd/crane ;;
    kubeconform) echo kubeconform github.com/yannh/kubeconform/cmd/kubeconform ;;
    *) die "unknown tool: $1 (known: ${ALL[*]})" ;;
  esac
}

# pinned MODULE_DIR GO_MODULE: the version that go.mod requires.
pinned() {
  awk -v module="$2" '$1 == module {print $2; exit} $1 == "require" && $2 == module {print $3; exit}' \
    "$ROOT/tools/$1/go.mod"
}

ldflags() {
  local version
  case $1 in
    kubernetes)
      version=$(pinned kubernetes k8s.io/kubernetes)
      echo "-s -w -X k8s.io/component-base/version.gitVersion=$version -X k8s.io/client-go/pkg/version.gitVersion=$version"
      ;;
    helm)
      # Without a cluster to ask, helm renders for the version it was built against: v1.20, unless told.
      version=$(pinned kubernetes k8s.io/kubernetes)
      version=${version#v1.}
      echo "-s -w -X helm.sh/helm/v3/internal/version.version=$(pinned helm helm.sh/helm/v3)" \
        "-X helm.sh/helm/v3/pkg/chartutil.k8sVersionMajor=1 -X helm.sh/helm/v3/pkg/chartutil.k8sVersionMinor=${version%%.*}"
      ;;
    crane) echo "-s -w -X github.com/google/go-containerregistry/cmd/crane/cmd.Version=$(pinned crane github.com/google/go-containerregistry)" ;;
    kubeconform) echo "-s -w -X main.version=$(pinned kubeconform github.com/yannh/kubeconform)" ;;
    *) echo "-s -w" ;;
  esac
}

# What a binary was made from; it stands beside the binary as its stamp.
fingerprint() {
  local dir=$1
  {
    cat "$ROOT/tools/$dir/go.mod" "$ROOT/tools/$dir/go.sum"
    ldflags "$dir"
  } | sha256sum | cut -d' ' -f1
}

build() {
  local name=$1 dir package stamp want started
  read -r dir package <<<"$(recipe "$name")"
  [[ $(tool "$name") == "$BIN_DIR/$name" ]] || return 0
  stamp=$BIN_DIR/.$name.stamp
  want=$(fingerprint "$dir")
  if [[ -x $BIN_DIR/$name && -f $stamp && $(<"$stamp") == "$want" ]]; then
    return 0
  fi
  need go "The tools are built from pinned Go modules: install Go 1.26 or newer (an older one from 1.21 on fetches it)."
  started=$SECONDS
  note "  building $name$([[ $name == kube-apiserver ]] && echo ' (a cold build takes about 4 minutes on 2 cores)') …"
  mkdir -p "$BIN_DIR"
  rm -f "$stamp"
  (
    cd "$ROOT/tools/$dir"
    CGO_ENABLED=0 GOWORK=off GOFLAGS=-buildvcs=false \
      go build -trimpath -mod=readonly -ldflags "$(ldflags "$dir")" -o "$BIN_DIR/$name" "$package"
  ) || die "could not build $name"
  printf '%s\n' "$want" >"$stamp"
  note "  built    $name in $((SECONDS - started)) s"
}

names=("$@")
((${#names[@]})) || names=("${ALL[@]}")
mkdir -p "$TOOLS_DIR"
exec 9>"$TOOLS_DIR/.lock"
flock 9 # two callers at once: the second finds everything built
for name in "${names[@]}"; do
  build "$name"
done
