#!/usr/bin/env bash
# Writes the generated files, or with --check says which of the committed ones differ from what the binary would write.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

TOKENWARD=$ROOT/target/release/tokenward

# One file per CustomResourceDefinition, named GROUP_PLURAL.yaml as the Kubernetes tools do.
split_crds() {
  awk -v folder="$1" '
    function flush() { if (name != "") printf "%s", text > (folder "/" name ".yaml"); text = name = "" }
    /^---$/ { flush(); next }
    { text = text $0 "\n" }
    /^  name: / && name == "" { split($2, part, "."); name = substr($2, length(part[1]) + 2) "_" part[1] }
    END { flush() }'
}

# generate_into FOLDER: everything that is generated, laid out as in the repository.
generate_into() {
  mkdir -p "$1/crds" "$1/charts/tokenward/crd"
  "$TOKENWARD" crds | split_crds "$1/crds"
  cp "$1"/crds/*.yaml "$1/charts/tokenward/crd/"
  mkdir -p "$1/docs"
  "$TOKENWARD" reference api >"$1/docs/api.md"
  "$TOKENWARD" reference metrics >"$1/docs/metrics.md"
}

OUT=$(mktemp -d)
trap 'rm -rf "$OUT"' EXIT
(cd "$ROOT" && cargo build --quiet --release --locked)
generate_into "$OUT"

drifted=0
while read -r path; do
  if cmp -s "$OUT/$path" "$ROOT/$path"; then continue; fi
  if [[ ${1:-} == --check ]]; then
    note "$path differs from what would be generated:"
    diff -u "$ROOT/$path" "$OUT/$path" | head -n 40 || true
    drifted=1
  else
    mkdir -p "$(dirname "$ROOT/$path")"
    cp "$OUT/$path" "$ROOT/$path"
    note "wrote $path"
  fi
done < <(cd "$OUT" && find . -type f -printf '%P\n' | LC_ALL=C sort)
if ! fuzz_lock_is_current; then
  if [[ ${1:-} == --check ]]; then
    note "fuzz/Cargo.lock does not fit Cargo.lock and the manifests"
    drifted=1
  else
    cp "$ROOT/Cargo.lock" "$ROOT/fuzz/Cargo.lock"
    cargo metadata --quiet --format-version 1 --manifest-path "$ROOT/fuzz/Cargo.toml" >/dev/null
    note "wrote fuzz/Cargo.lock"
  fi
fi
((drifted == 0)) || die "generated files have drifted; run: make generate"
