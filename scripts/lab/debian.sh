# Sourced by the other scripts: where the laboratory lives, and Debian's packages without installing them.
# shellcheck shell=bash
LAB=${ESTIBA_LAB:-/tmp/estiba-lab}
# shellcheck disable=SC2034  # of use to those who source this
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
SOURCES=${ESTIBA_LAB_SOURCES:-/etc/apt/sources.list.d/debian.sources}
export DEBIAN_FRONTEND=noninteractive

say() { printf 'lab: %s\n' "$*" >&2; }
fail() { say "$*"; exit 1; }

# One at a time: several test runs may ask for the same thing at once. The lock is not inherited by what is started.
one_at_a_time() { # NAME
  mkdir -p "$LAB"
  exec 9>"$LAB/$1.lock"
  flock 9
}

# The machine's own mirrors, for another release. Nothing here names one.
sources_of() { # SUITE
  local host
  [ -r "$SOURCES" ] || fail "$SOURCES is not there. The laboratory needs Debian 12 or newer, or ESTIBA_LAB_SOURCES=FILE."
  host=$(. /etc/os-release && echo "$VERSION_CODENAME")
  sed "/^#/d; s/\b$host\b/$1/g" "$SOURCES"
}

install_packages() { # PACKAGE...
  local missing=() name
  for name in "$@"; do
    dpkg-query -W -f '${Status}' "$name" 2>/dev/null | grep -q 'ok installed' || missing+=("$name")
  done
  [ ${#missing[@]} -eq 0 ] && return
  [ "$(id -u)" = 0 ] || fail "not root, and not installed: ${missing[*]}. Run: sudo apt-get install ${missing[*]}"
  say "installing ${missing[*]}"
  apt-get update -qq
  apt-get install -qq -y --no-install-recommends "${missing[@]}" >"$LAB/apt.log" 2>&1 || { tail -5 "$LAB/apt.log" >&2; return 1; }
}

# Unpacks packages of another release into a folder, so that this machine's own stay as they are.
unpack_packages() { # SUITE FOLDER PACKAGE...
  local suite=$1 folder=$2 state=$LAB/apt/$1 options file
  shift 2
  mkdir -p "$state/lists/partial" "$state/debs" "$folder"
  sources_of "$suite" >"$state/debian.sources"
  options=(-o "Dir::Etc::sourcelist=$state/debian.sources" -o Dir::Etc::sourceparts=- -o "Dir::State::lists=$state/lists"
    -o APT::Sandbox::User=root)
  rm -f "$state"/debs/*.deb
  apt-get "${options[@]}" update -qq
  (cd "$state/debs" && apt-get "${options[@]}" download -qq "$@")
  for file in "$state"/debs/*.deb; do dpkg-deb -x "$file" "$folder"; done
}
