# Shared by the scripts; sourced.

say() { echo "zoo setup: $*" >&2; }
fail() {
  echo "zoo setup: error: $*" >&2
  exit 1
}

# fetch DIR ABI REQUIREMENT.. : wheels for CPython 3.11 on x86-64 Linux, hash-checked, whatever python3 runs here.
fetch() {
  local dir=$1
  shift
  [ "$(uname -sm)" = "Linux x86_64" ] || fail "prebuilt libraries are pinned for Linux x86_64 only; set LIBTORCH and ORT_DYLIB_PATH yourself"
  python3 -m pip --version >/dev/null 2>&1 || fail "python3 with pip is needed (Debian: apt install python3-pip)"
  printf '%s\n' "$@" >"$dir/requirements.txt"
  python3 -m pip download --quiet --disable-pip-version-check --no-cache-dir --no-deps --require-hashes \
    --only-binary :all: --python-version 3.11 --implementation cp --abi cp311 \
    --platform manylinux_2_28_x86_64 --platform manylinux_2_27_x86_64 --platform manylinux_2_25_x86_64 \
    --platform manylinux_2_17_x86_64 --platform manylinux2014_x86_64 \
    --dest "$dir" --requirement "$dir/requirements.txt" >&2 ||
    fail "the download failed (network? a mirror without these files?); nothing was changed"
}

# unpack WHEEL DEST PREFIX.. : members whose path starts with 'FROM=TO' prefixes, FROM replaced by TO.
unpack() {
  python3 - "$@" <<'PY'
import os, shutil, sys, zipfile

wheel, dest, rules = sys.argv[1], sys.argv[2], [r.split("=", 1) for r in sys.argv[3:]]
with zipfile.ZipFile(wheel) as archive:
    for member in archive.infolist():
        target = next((to + member.filename[len(src):] for src, to in rules if member.filename.startswith(src)), None)
        if target is None or member.is_dir():
            continue
        path = os.path.join(dest, target)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with archive.open(member) as source, open(path, "wb") as sink:
            shutil.copyfileobj(source, sink, 1 << 20)
PY
}
