#!/usr/bin/env bash
# Builds dist/tokenward-VERSION-ARCH.tar: an image for any engine (docker load, podman load, ctr images import), made
# without one. It holds the release binary, the C library it needs and the public certificate authorities, both from
# this Debian release's packages; no shell, no package manager. Same commit, same packages: same bytes.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
source "$ROOT/tools/packages.sh"

for program in apt-get dpkg-deb dpkg; do
  need "$program" "The image's C library comes from Debian packages; elsewhere use the Dockerfile."
done
need cargo "It builds the binary: install Rust with rustup."

VERSION=$(package_field version)
ARCH=$(dpkg --print-architecture)
PACKAGES=(libc6 libgcc-s1 ca-certificates)
OUT=$ROOT/dist/tokenward-$VERSION-$ARCH.tar
REVISION=$(git -C "$ROOT" rev-parse HEAD)
[[ -z $(git -C "$ROOT" status --porcelain --untracked-files=no) ]] || REVISION+=-dirty
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git -C "$ROOT" log -1 --format=%ct)}

WORK=$(mktemp -d)
REGISTRY_PID=''
cleanup() {
  [[ -z $REGISTRY_PID ]] || kill "$REGISTRY_PID" 2>/dev/null || true
  rm -rf "$WORK"
}
trap cleanup EXIT

# Packages are kept in .tools/debs.
fetch_packages() {
  local debs=$TOOLS_DIR/debs name
  for name in "${PACKAGES[@]}"; do
    if ! compgen -G "$debs/${name}_*.deb" >/dev/null; then
      note "fetching ${PACKAGES[*]}"
      fetch_debs "$debs" "${PACKAGES[@]}"
      return
    fi
  done
}

# What is left of a package: its libraries and certificates, its licence, and its entry for vulnerability scanners.
unpack() {
  local name=$1 deb licence
  deb=$(compgen -G "$TOOLS_DIR/debs/${name}_*.deb" | head -n 1)
  dpkg-deb -x "$deb" "$WORK/$name"
  mkdir -p "$WORK/root/var/lib/dpkg/status.d" "$WORK/root/usr/share/doc/$name"
  dpkg-deb -f "$deb" >"$WORK/root/var/lib/dpkg/status.d/$name"
  # Some packages link to the licence of another one, which this machine has: it runs the same release.
  licence=$WORK/$name/usr/share/doc/$name/copyright
  [[ -f $licence ]] || licence=/usr/share/doc/$name/copyright
  cp -L "$licence" "$WORK/root/usr/share/doc/$name/"
}

make_root() {
  local root=$WORK/root name
  mkdir -p "$root"/{etc/ssl/certs,usr/bin,usr/lib,usr/lib64,home/nonroot,proc,tmp}
  ln -s usr/bin "$root/bin"
  ln -s usr/lib "$root/lib"
  ln -s usr/lib64 "$root/lib64"
  chmod 1777 "$root/tmp"

  for name in "${PACKAGES[@]}"; do unpack "$name"; done
  # Name resolution, threads and mathematics; not the character set converters. Releases differ in /lib and /usr/lib.
  for name in libc6 libgcc-s1; do
    (
      cd "$WORK/$name"
      find . -regextype posix-extended -not -path '*/gconv/*' \
        -regex '.*/(ld-linux[^/]*|lib(c|m|resolv|nss_dns|nss_files|pthread|dl|rt|gcc_s))\.so\.[0-9]+' -print0 |
        tar --create --null --files-from - --transform 's,^\./\(usr/\)\?,usr/,SH'
    ) | tar --extract --directory "$root"
  done
  find "$WORK/ca-certificates/usr/share/ca-certificates" -name '*.crt' -print0 | LC_ALL=C sort -z |
    xargs -0 cat >"$root/etc/ssl/certs/ca-certificates.crt"

  echo 'nonroot:x:65532:65532:nonroot:/home/nonroot:/sbin/nologin' >"$root/etc/passwd"
  echo 'nonroot:x:65532:' >"$root/etc/group"
  echo 'hosts: files dns' >"$root/etc/nsswitch.conf"
  grep -E '^(PRETTY_NAME|NAME|VERSION_ID|VERSION|VERSION_CODENAME|ID)=' /etc/os-release >"$root/etc/os-release"
  install -m 0755 "$ROOT/target/release/tokenward" "$root/usr/bin/tokenward"
  mkdir -p "$root/usr/share/doc/tokenward"
  if [[ -f $ROOT/LICENSE ]]; then cp "$ROOT/LICENSE" "$root/usr/share/doc/tokenward/"; fi
}

pack_root() {
  find "$WORK/root" -type d -exec chmod u=rwx,go=rx {} +
  chmod 1777 "$WORK/root/tmp"
  tar --create --file "$WORK/layer.tar" --directory "$WORK/root" --sort=name --format=gnu \
    --mtime="@$SOURCE_DATE_EPOCH" --owner=0 --group=0 --numeric-owner .
}

# crane writes an image's configuration only through a registry: a private one on loopback, for a second.
assemble() {
  local crane port ref
  crane=$(tool crane)
  port=$(free_port)
  ref=127.0.0.1:$port/tokenward:$VERSION
  mkdir "$WORK/registry"
  PORT=$port "$crane" registry serve --address "127.0.0.1:$port" --disk "$WORK/registry" >"$WORK/registry.log" 2>&1 &
  REGISTRY_PID=$!
  wait_until 10 curl --silent --fail "http://127.0.0.1:$port/v2/" || die "crane registry: $(<"$WORK/registry.log")"

  "$crane" append --insecure --oci-empty-base --new_layer "$WORK/layer.tar" --new_tag "$ref" >/dev/null 2>&1 ||
    die "crane append failed"
  "$crane" mutate --insecure "$ref" --tag "$ref" --set-platform "linux/$ARCH" \
    --entrypoint /usr/bin/tokenward --user 65532:65532 --workdir /home/nonroot \
    --env PATH=/usr/bin --env SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt \
    --label org.opencontainers.image.title=tokenward \
    --label "org.opencontainers.image.description=$(package_field description)" \
    --label "org.opencontainers.image.version=$VERSION" \
    --label "org.opencontainers.image.revision=$REVISION" \
    --label "org.opencontainers.image.created=$(date -u -d "@$SOURCE_DATE_EPOCH" +%FT%TZ)" \
    --label "org.opencontainers.image.source=$(package_field repository)" \
    --label "org.opencontainers.image.licenses=$(package_field license)" >/dev/null 2>&1 || die "crane mutate failed"
  "$crane" pull --insecure --format=oci "$ref" "$WORK/oci" >/dev/null
}

# An OCI layout with docker's manifest.json beside it: one tar that old and new engines load.
write_tar() {
  local oci=$WORK/oci manifest config layer
  digests() { grep -o 'sha256:[0-9a-f]\{64\}' "$1" | cut -d: -f2; }
  manifest=$(digests "$oci/index.json" | head -n 1)
  config=$(digests "$oci/blobs/sha256/$manifest" | sed -n 1p)
  layer=$(digests "$oci/blobs/sha256/$manifest" | sed -n 2p)
  printf '[{"Config":"blobs/sha256/%s","RepoTags":["tokenward:%s"],"Layers":["blobs/sha256/%s"]}]' \
    "$config" "$VERSION" "$layer" >"$oci/manifest.json"
  printf '{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[{"mediaType":"%s","digest":"sha256:%s","size":%s,"annotations":{"io.containerd.image.name":"docker.io/library/tokenward:%s","org.opencontainers.image.ref.name":"%s"},"platform":{"architecture":"%s","os":"linux"}}]}' \
    application/vnd.oci.image.manifest.v1+json "$manifest" "$(stat -c %s "$oci/blobs/sha256/$manifest")" \
    "$VERSION" "$VERSION" "$ARCH" >"$oci/index.json"
  mkdir -p "$(dirname "$OUT")"
  find "$oci" -type f -exec chmod 0644 {} +
  tar --create --file "$OUT" --directory "$oci" --sort=name --format=gnu --mode=go=rX,u+w \
    --mtime="@$SOURCE_DATE_EPOCH" --owner=0 --group=0 --numeric-owner blobs index.json manifest.json oci-layout
}

"$ROOT/tools/build.sh" crane
(cd "$ROOT" && cargo build --release --locked --bin tokenward)
fetch_packages
make_root
pack_root
assemble
write_tar
note "${OUT#"$ROOT"/}: $(($(stat -c %s "$OUT") / 1024)) KiB, revision $REVISION"
