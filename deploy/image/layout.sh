#!/bin/sh
# Lays out the files of the image, below its base: `layout.sh ROOT NODE [PROBE]`, in a checkout whose `dist/` is built.
# NODE is the program that runs it, PROBE grpc-health-probe for probes by exec. The Containerfile and a test run this.
set -eu
root=$1 node=$2 probe=${3:-}
cd "$(dirname "$0")/../.."
umask 022
# Not what the base has itself, such as /tmp: a copied folder's mode would replace its own.
mkdir -p "$root/app" "$root/usr/local/bin" "$root/run/policy-sidecar"
cp -R dist proto package.json LICENSE "$root/app/"
cp "$node" "$root/usr/local/bin/node"
# From version 25 on Node needs this library, and the base has none. The loader of the base looks in the same places, below
# /usr alike.
atomic=$(ldd "$node" | sed -n 's|.* => \(/.*/libatomic\.so\.1\) .*|\1|p')
if [ -n "$atomic" ]; then
  mkdir -p "$root/usr$(dirname "${atomic#/usr}")"
  cp "$atomic" "$root/usr${atomic#/usr}"
fi
[ -z "$probe" ] || cp "$probe" "$root/usr/local/bin/grpc-health-probe"
# No shell and no `env` are needed: the kernel finds Node by the first line.
printf '%s\n' '#!/usr/local/bin/node' "import('/app/dist/start.js');" >"$root/usr/local/bin/policy-sidecar"
chmod -R a+rX,go-w "$root/app" "$root/usr"
chmod 755 "$root/usr/local/bin/node" "$root/usr/local/bin/policy-sidecar"
