#!/usr/bin/env bash
# Opens the image tar of `make image` and checks what is promised of it: who it runs as, what it starts, its labels,
# that there is no shell in it, and that its binary runs with nothing but what is inside.
source "$(dirname "${BASH_SOURCE[0]}")/../tools/lib.sh"

VERSION=$(package_field version)
TAR=${1:-$(compgen -G "$ROOT/dist/tokenward-$VERSION-*.tar" | head -n 1)}
[[ -f $TAR ]] || die "no image in dist/; make one with: make image"

WORK=$(mktemp -d)
trap 'chmod -R u+rwX "$WORK"; rm -rf "$WORK"' EXIT
PASSED=0
FAILED=0

check() {
  local what=$1
  shift
  if "$@"; then
    PASSED=$((PASSED + 1))
    note "ok   $what"
  else
    FAILED=$((FAILED + 1))
    note "FAIL $what"
  fi
}

has() { grep -qF -- "$2" "$1"; }
matches() { grep -qE -- "$2" "$1"; }
lacks() { ! grep -qE -- "$2" "$1"; }

tar --extract --file "$TAR" --directory "$WORK"
# The manifest names the configuration first, then the layers.
read -r config layer <<<"$(grep -o 'blobs/sha256/[0-9a-f]\{64\}' "$WORK/manifest.json" | tr '\n' ' ')"
CONFIG=$WORK/$config
mkdir "$WORK/root"
tar --extract --file "$WORK/$layer" --directory "$WORK/root"
tar --list --verbose --numeric-owner --file "$WORK/$layer" >"$WORK/files"

digests_hold() {
  local blob
  for blob in "$WORK"/blobs/sha256/*; do
    [[ $(sha256sum <"$blob" | cut -d' ' -f1) == "$(basename "$blob")" ]] || return 1
  done
}

# As root or in a user namespace the image's root is the whole world; where neither is allowed, its own loader at least
# takes every library from it.
run_inside() {
  local root=$WORK/root loader
  if [[ $(id -u) == 0 ]]; then
    chroot "$root" "$@"
  elif unshare --user --map-root-user true 2>/dev/null; then
    unshare --user --map-root-user chroot "$root" "$@"
  else
    loader=$(find "$root/usr/lib" "$root/usr/lib64" -name 'ld-linux*' -type f | head -n 1)
    "$loader" --library-path "$(find "$root/usr/lib" -name libc.so.6 -printf '%h\n' | head -n 1)" "$root$1" "${@:2}"
  fi
}
says_its_version() {
  local answer
  answer=$(run_inside /usr/bin/tokenward --version)
  if [[ $answer != *"$VERSION"* ]]; then
    note "     it said: ${answer:-nothing}"
    return 1
  fi
}

check "every blob has the digest in its name" digests_hold
check "an OCI layout" has "$WORK/oci-layout" '"imageLayoutVersion"'
check "the OCI index and the docker manifest name the tag" has "$WORK/index.json" "\"org.opencontainers.image.ref.name\":\"$VERSION\""
check "docker loads it as tokenward:$VERSION" has "$WORK/manifest.json" "\"tokenward:$VERSION\""
check "runs as 65532:65532" has "$CONFIG" '"User":"65532:65532"'
check "starts the operator" has "$CONFIG" '"Entrypoint":["/usr/bin/tokenward"]'
check "has a platform" matches "$CONFIG" '"architecture":"[a-z0-9]+".*"os":"linux"'
for label in title description revision source licenses; do
  check "label $label" matches "$CONFIG" "\"org.opencontainers.image.$label\":\"[^\"]+\""
done
check "label version" has "$CONFIG" "\"org.opencontainers.image.version\":\"$VERSION\""
check "the user is known" has "$WORK/root/etc/passwd" 'nonroot:x:65532:65532:'
check "certificate authorities are there" has "$WORK/root/etc/ssl/certs/ca-certificates.crt" 'BEGIN CERTIFICATE'
check "no shell, no interpreter, no package manager" lacks "$WORK/files" '/(sh|bash|dash|ash|busybox|perl|python[0-9.]*|apt|dpkg)( |$)'
check "one program only" test "$(find "$WORK/root/usr/bin" -type f | wc -l)" = 1
check "nothing is setuid or setgid" lacks "$WORK/files" '^-..[sS]|^-.....[sS]'
check "all of it belongs to root" lacks "$WORK/files" '^[^ ]+ [1-9]'
check "tokenward --version runs with what is inside" says_its_version

note "$PASSED passed, $FAILED failed"
((FAILED == 0))
