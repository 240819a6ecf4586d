#!/bin/bash
# down.sh DIR: end every process on the hosts of up.sh, by its id; their networks go with them.
dir=$(realpath -m "$1")
for file in "$dir"/*.pid; do
    [ -f "$file" ] || continue
    net=$(readlink "/proc/$(cat "$file")/ns/net")
    rm "$file"
    [ -z "$net" ] || [ "$net" = "$(readlink /proc/self/ns/net)" ] && continue
    for process in /proc/[0-9]*; do
        [ "$(readlink "$process/ns/net" 2>/dev/null)" = "$net" ] && kill -9 "${process#/proc/}" 2>/dev/null
    done
done
exit 0
