#!/bin/sh
# Runs a program of RabbitMQ out of the folder `root` beside this script: `run.sh DATA PORT PROGRAM [ARGUMENT]..`.
#
# PROGRAM is `rabbitmq-server`, `rabbitmqctl`, `rabbitmq-plugins` or `rabbitmq-diagnostics`; all that belong to one server get the same
# DATA and PORT. DATA is the folder for what the server keeps and finds again at its next start; a `rabbitmq.conf` in it is read. The
# server listens on PORT of the loopback address, and its node on the two ports above. All processes and mounts end with this one, also
# when it is killed. Needs root, or a system where everybody may have namespaces.
# All versions take bodies of 16 MiB at most, as current ones do, so that they refuse the same ones.
set -eu
[ $# -ge 3 ] || { echo "usage: $0 DATA PORT PROGRAM [ARGUMENT].." >&2; exit 64; }
folder=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$1"
data=$(cd "$1" && pwd) port=$2 program=$3
shift 3
as_root=
[ "$(id -u)" = 0 ] || as_root=--map-root-user
# Not on everybody's path.
PATH=$PATH:/usr/sbin:/sbin
# shellcheck disable=SC2016 # the inner shell expands
exec unshare $as_root --mount --pid --fork --kill-child sh -euc '
    root=$1 data=$2 port=$3 program=$4
    shift 4
    mount --bind "$data" "$root/data"
    mount -t proc proc "$root/proc"
    for device in null random urandom; do mount --bind "/dev/$device" "$root/dev/$device"; done
    loopback="-kernel inet_dist_use_interface {127,0,0,1}"
    exec env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin:/usr/lib/erlang/bin HOME=/data LANG=C.UTF-8 \
        RABBITMQ_NODENAME="throughline-$port@localhost" RABBITMQ_NODE_IP_ADDRESS=127.0.0.1 RABBITMQ_NODE_PORT="$port" \
        RABBITMQ_DIST_PORT=$((port + 1)) ERL_EPMD_PORT=$((port + 2)) ERL_EPMD_ADDRESS=127.0.0.1 \
        RABBITMQ_MNESIA_BASE=/data/mnesia RABBITMQ_LOG_BASE=/data/log RABBITMQ_CONFIG_FILE=/data/rabbitmq \
        RABBITMQ_ENABLED_PLUGINS_FILE=/data/enabled_plugins \
        RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS="+S 1:1 $loopback -rabbit max_message_size 16777216" RABBITMQ_CTL_ERL_ARGS="$loopback" \
        RABBITMQ_CTL_DIST_PORT_MIN=0 RABBITMQ_CTL_DIST_PORT_MAX=0 \
        chroot "$root" "/usr/lib/rabbitmq/bin/$program" "$@"
' sh "$folder/root" "$data" "$port" "$program" "$@"
