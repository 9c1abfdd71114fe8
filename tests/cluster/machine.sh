#!/usr/bin/env bash
# Turn this process into a machine of the cluster: machine.sh NAME ADDRESS ROOT SHARED
# It runs in namespaces of its own (network, mounts, processes, host name) and writes to the host only in SHARED,
# which stands for the cluster's shared file system. All else that it writes is in its own memory.
set -euo pipefail
name=$1 address=$2 root=$3 shared=$4

hostname "$name"
mount -t tmpfs tmpfs /run
mkdir /run/own /run/shared
cp "$root"/{slurm.conf,cgroup.conf,munge.key,hosts} /run/own/
mount --bind "$shared" /run/shared
for folder in /tmp /var/tmp /dev/shm; do
    mount -t tmpfs tmpfs "$folder"
done
mkdir -p "$root/spool" "$shared"
cp -p /run/own/* "$root/"
mount --bind /run/shared "$shared"
mount --bind "$root/hosts" /etc/hosts
mount -o remount,bind,ro /

ip link set lo up
ip address replace "$address/24" dev eth0
ip link set eth0 up
munged --foreground --force --key-file="$root/munge.key" --socket="$root/munge.sock" \
    --pid-file="$root/munged.pid" --seed-file="$root/seed" --log-file="$root/munged.log" &
until [ -S "$root/munge.sock" ]; do sleep 0.1; done
# Not by exec: the first process of a machine collects the others that have ended. They work on without slurmd.
slurmd -D -N "$name" || sleep infinity
