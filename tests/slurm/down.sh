#!/bin/bash
# down.sh DIR: end the daemons that up.sh has started, by their pid files.
D=$(realpath -m "$1"); export SLURM_CONF=$D/slurm.conf
scancel -u root --quiet 2>/dev/null; sleep 1
for f in "$D"/pid/slurmd.*.pid "$D"/pid/slurmctld.pid "$D"/pid/munged.pid; do [ -f "$f" ] && kill "$(cat "$f")" 2>/dev/null; done
sleep 1; exit 0
