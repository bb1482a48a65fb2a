#!/usr/bin/env bash
# Installs what building and testing Shrike needs, and says so; does nothing where all is there.
# On Debian and Ubuntu, as root or with sudo. On other systems it lists what to install.
set -euo pipefail

packages=(g++ cmake ninja-build ccache pkg-config libjpeg-dev libstb-dev libpugixml-dev nlohmann-json3-dev
          libcli11-dev catch2)

if ! command -v apt-get >/dev/null || ! command -v dpkg-query >/dev/null; then
  echo "setup: this is not Debian or Ubuntu; nothing was installed. Shrike needs a C++20 compiler, CMake 3.22 or later, Ninja,"
  echo "setup: and the development files of libjpeg(-turbo), stb, pugixml, nlohmann-json, CLI11 and Catch2."
  exit 0
fi

missing=()
for package in "${packages[@]}"; do
  status=$(dpkg-query -W -f '${Status}' "$package" 2>/dev/null || true)
  [[ $status == "install ok installed" ]] || missing+=("$package")
done
if [[ ${#missing[@]} -eq 0 ]]; then
  echo "setup: everything is installed"
  exit 0
fi

as_root=()
if [[ $(id -u) -ne 0 ]]; then
  if ! command -v sudo >/dev/null; then
    echo "setup: please run as root: apt-get install ${missing[*]}" >&2
    exit 1
  fi
  as_root=(sudo)
fi
echo "setup: installing ${missing[*]}"
export DEBIAN_FRONTEND=noninteractive
# A package list that is a little old is no reason to fail.
"${as_root[@]}" apt-get update -q </dev/null || echo "setup: the package lists could not be renewed, going on with those there are"
"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "${missing[@]}" </dev/null
echo "setup: done"
