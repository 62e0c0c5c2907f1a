#!/bin/bash
# A worker on another node joins with certificates: broker and worker each have
# a network of their own, with one cable between. Needs `ip` (iproute2) and
# either root or user namespaces; without them it fails and says so.
set -euo pipefail
cd "$(dirname "$0")/.."
bin=$PWD/target/debug

die() { echo "node: $*" >&2; exit 1; }

# Inside: the broker's node is this namespace.
if [ "${1:-}" = inside ]; then
  dir=$2
  trap 'kill $(jobs -p) 2>/dev/null; wait' EXIT
  # One command in the worker's node.
  unshare --net sleep infinity &
  node=$!
  there() { nsenter --target "$node" --net "$@"; }
  until [ "$(readlink "/proc/$node/ns/net")" != "$(readlink /proc/self/ns/net)" ]; do :; done
  ip link add cable type veth peer name other
  ip link set other netns "$node"
  ip addr add 10.77.0.1/24 dev cable
  ip link set cable up
  there ip addr add 10.77.0.2/24 dev other
  there ip link set other up
  ip link set lo up

  "$bin/asynqd" tls init "$dir/certs" --name 10.77.0.1 >/dev/null
  "$bin/asynqd" token new caller --role caller --add-to "$dir/tokens.toml" >"$dir/caller"
  "$bin/asynqd" token new worker --role worker --add-to "$dir/tokens.toml" >"$dir/worker"
  secured=(--tls-cert "$dir/certs/server.pem" --tls-key "$dir/certs/server.key"
           --client-ca "$dir/certs/ca.pem" --tokens "$dir/tokens.toml")
  if "$bin/asynqd" --listen 10.77.0.1:7740 --data-dir "$dir/data" 2>"$dir/refused"; then
    die "an open broker listens on 10.77.0.1"
  fi
  grep -q 'refusing to listen on 10.77.0.1:7740' "$dir/refused" || die "$(cat "$dir/refused")"
  "$bin/asynqd" --listen 10.77.0.1:7740 --http none --data-dir "$dir/data" "${secured[@]}" 2>"$dir/asynqd.log" &

  as() { echo --broker https://10.77.0.1:7740 --ca "$dir/certs/ca.pem" \
         --cert "$dir/certs/$1.pem" --tls-key "$dir/certs/$1.key" --token "@$dir/$1"; }
  # The paths of a temporary folder have no spaces.
  # Not by way of `there`, whose shell would be ended in its place.
  # shellcheck disable=SC2046
  nsenter --target "$node" --net "$bin/asynq-worker" $(as worker) --name far-away --builtins 2>"$dir/worker.log" &
  # shellcheck disable=SC2046
  answer=$("$bin/asynq" $(as caller) call echo '{"far":"away"}' --wait 30s) || die "$(cat "$dir"/*.log)"
  [ "$answer" = '{"far":"away"}' ] || die "echo answered $answer"
  # shellcheck disable=SC2046
  "$bin/asynq" $(as caller) worker ls
  # From the other node, too: no certificate, no way in.
  if there "$bin/asynq" --broker https://10.77.0.1:7740 --ca "$dir/certs/ca.pem" queue ls 2>"$dir/refused"; then
    die "somebody without a certificate came in"
  fi
  grep -q CERTIFICATE_REFUSED "$dir/refused" || die "$(cat "$dir/refused")"
  echo "node: a worker at 10.77.0.2 joined the broker at 10.77.0.1 with certificate and token; without, it is refused"
  exit
fi

command -v ip >/dev/null || die "ip is missing. Install it with: apt-get install -y iproute2"
apart=(unshare --net)
[ "$(id -u)" = 0 ] || apart=(unshare --user --map-root-user --net)
"${apart[@]}" true 2>/dev/null || die "this system lets nobody make network namespaces: run it as root"
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
"${apart[@]}" "$0" inside "$dir"
