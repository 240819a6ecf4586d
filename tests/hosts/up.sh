#!/bin/bash
# up.sh DIR N: hosts h1..hN on this machine, each with its own network address, host name, process, mount and IPC
# namespace, /dev/shm, /etc/hosts and temporary folder, joined by a bridge in a namespace of its own (sw). DIR/NAME.pid is
# the process that keeps a host; when it ends, all that runs there ends: its power is gone.
# Takes root, util-linux and iproute2.
set -euo pipefail
dir=$(realpath -m "$1") count=$2 net=10.77.0
mkdir -p "$dir"
{ echo "127.0.0.1 localhost"; for i in $(seq "$count"); do echo "$net.$i h$i"; done; } >"$dir/hosts"

keep() { # NAME, the flags of unshare, what is done at first: a namespace for each flag
    local name=$1 first=$2
    shift 2
    setsid unshare --fork --kill-child "$@" bash -c "
        $first
        ip link set lo up
        : >$dir/$name.ready
        trap : TERM
        while :; do sleep 3600 & wait; done" </dev/null >/dev/null 2>&1 &
    local outer=$!
    for _ in $(seq 250); do [ -e "$dir/$name.ready" ] && break; sleep 0.02; done
    rm "$dir/$name.ready"
    tr -d ' ' <"/proc/$outer/task/$outer/children" >"$dir/$name.pid"
}

switch() { nsenter -t "$(cat "$dir/sw.pid")" -n "$@"; }

keep sw : --net
switch ip link add br0 type bridge
switch ip link set br0 up
for i in $(seq "$count"); do
    # mpirun runs on h1, and has to enter the others: it is in the process namespace of this machine
    if [ "$i" = 1 ]; then own=(); else own=(--pid --mount-proc); fi
    keep "h$i" "hostname h$i; mount -t tmpfs shm /dev/shm; mkdir -p $dir/tmp.h$i; mount -t tmpfs tmp $dir/tmp.h$i
        mount --bind $dir/hosts /etc/hosts" --net --uts --mount --ipc "${own[@]}" --propagation private
    host=$(cat "$dir/h$i.pid")
    switch ip link add "v$i" type veth peer name eth0 netns "$host"
    switch ip link set "v$i" master br0 up
    nsenter -t "$host" -n ip addr add "$net.$i/24" dev eth0
    nsenter -t "$host" -n ip link set eth0 up
done
