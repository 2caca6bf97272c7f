# Names and places that build, up, down and node share. ESTIBA_LAB moves the folder where everything is kept.
# shellcheck shell=bash disable=SC2034
HERE=$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")
LAB=${ESTIBA_LAB:-/tmp/estiba-lab}/kubernetes
VERSION=1.20.2

# Built once and kept.
SOURCE=$LAB/go/src/k8s.io/kubernetes
BIN=$LAB/bin
IMAGES=$LAB/images

# Of the running cluster; `up` makes it anew, `down` removes it.
RUN=$LAB/run
PID=$RUN/node.pid

# One node, in a network of its own that the machine reaches over one cable. The machine also has a route to the
# pods and to the services, so tests call them as another pod would.
export RUN NODE=estiba-node
export MACHINE_IP=10.213.0.1
export NODE_IP=10.213.0.2
CABLE=10.213.0.0/30
PODS=10.214.0.0/16
SERVICES=10.215.0.0/16
API_IP=10.215.0.1
export API=https://$NODE_IP:6443

# Whether the process of that number is a node of this laboratory, and not another that was given the number since.
is_node() { tr '\0' ' ' 2>/dev/null <"/proc/$1/cmdline" | grep -q "$HERE/node"; }

fail() { printf '%s\n' "$*" >&2; exit 1; }
step() { printf '== %s (%ss)\n' "$1" "$SECONDS"; }
