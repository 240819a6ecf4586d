#!/bin/bash
# up.sh DIR NODES CPUS PORT: a Slurm on one machine, with virtual nodes n1, n2, ..., each a slurmd of its own, which listen
# at the ports that follow the given one. Needs root.
set -euo pipefail
D=$(realpath -m "$1"); N=$2; C=$3; P=$4; H=$(hostname -s)
mkdir -p "$D"/{log,state,spool,pid,munge}; chmod 0755 "$D"
dd if=/dev/urandom of="$D/munge/key" bs=128 count=1 status=none; chmod 0700 "$D/munge"; chmod 0600 "$D/munge/key"
chmod 0711 "$D/munge"
cat > "$D/slurm.conf" <<CONF
ClusterName=test
SlurmctldHost=$H(127.0.0.1)
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket=$D/munge/sock,cred_expire=5
CryptoType=crypto/munge
SlurmctldPort=$P
SlurmdParameters=config_overrides
StateSaveLocation=$D/state
SlurmdSpoolDir=$D/spool/%n
SlurmctldPidFile=$D/pid/slurmctld.pid
SlurmdPidFile=$D/pid/slurmd.%n.pid
SlurmctldLogFile=$D/log/slurmctld.log
SlurmdLogFile=$D/log/slurmd.%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerType=sched/backfill
SchedulerParameters=bf_interval=2,sched_interval=2,requeue_delay=1,batch_sched_delay=0
SwitchType=switch/none
MpiDefault=none
JobRequeue=1
ReturnToService=2
KillWait=5
MinJobAge=600
InactiveLimit=0
SlurmctldTimeout=10
SlurmdTimeout=20
MailProg=/bin/true
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/none
CONF
for i in $(seq $N); do echo "NodeName=n$i NodeHostname=$H NodeAddr=127.0.0.1 Port=$((P+i)) CPUs=$C State=UNKNOWN" >> "$D/slurm.conf"; done
echo "PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP OverSubscribe=NO PreemptMode=OFF" >> "$D/slurm.conf"
export SLURM_CONF=$D/slurm.conf
munged --force --key-file="$D/munge/key" --socket="$D/munge/sock" --pid-file="$D/pid/munged.pid" --log-file="$D/log/munged.log" --seed-file="$D/munge/seed"
slurmctld -c -f "$SLURM_CONF"
for i in $(seq $N); do slurmd -N n$i -f "$SLURM_CONF"; done
for t in $(seq 100); do
  [ "$(sinfo -h -N -t idle -o %N 2>/dev/null | sort -u | wc -l)" = "$N" ] && { sinfo -N -l; exit 0; }; sleep 0.1
done
echo "slurm did not come up" >&2; sinfo; tail -5 "$D"/log/*; exit 1
