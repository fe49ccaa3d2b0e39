#!/usr/bin/env bash
# Boots systemd as a machine of its own: in new namespaces, with a control group and a file system of its own, of which
# only /usr is this machine's. Nothing else of this machine can be seen, and all but OUT is gone at the end.
#
# usage: machine.sh DIRECTORY METRICS, where DIRECTORY has
#   program   what the units run       units/    all units of the machine
#   template/ the cache to start with  out/      where the machine writes what it saw
#   root/     an empty directory       *.sh      what runs on the machine
# and METRICS is the directory of the metrics.
set -euo pipefail

outside() {
    groups=$directory/groups
    mkdir "$groups"
    mount -t cgroup2 cgroup2 "$groups"
    group=$groups/oci-cache-units-$$
    mkdir "$group"
    trap 'find "$group" -depth -type d -exec rmdir {} + && umount "$groups"' EXIT
    unshare --pid --net --ipc --uts --mount --fork --kill-child \
        bash "$0" "$directory" "$metrics" enter "$group"
}

# The group becomes the root of the machine's groups.
enter() {
    echo 0 >"$1/cgroup.procs"
    exec unshare --cgroup bash "$0" "$directory" "$metrics" boot
}

boot() {
    cd "$directory/root"
    mount -t tmpfs -o mode=0755 root .
    cd "$directory/root"
    mkdir -p etc home/user mnt old out proc root run sys tmp usr var/cache/banger var/lib var/tmp dev
    chmod 1777 tmp var/tmp
    touch home/user/file tmp/file
    mount --rbind /usr usr
    mount -t tmpfs -o mode=0755 bin usr/local/bin
    local name
    for name in bin sbin lib lib32 lib64; do
        if [[ -L /$name ]]; then cp -P "/$name" "$name"; fi
    done
    cp -a /etc/passwd /etc/group /etc/ld.so.cache etc
    echo 0123456789abcdef0123456789abcdef >etc/machine-id
    mount -t proc proc proc
    readlink proc/self/ns/net >network
    mount -t sysfs sysfs sys
    mount -t cgroup2 cgroup2 sys/fs/cgroup
    mount -t tmpfs -o mode=0755 run run
    devices
    mount -t tmpfs -o mode=0755 cache var/cache/banger
    mkdir -p "./$metrics"
    cp "$directory/program" usr/local/bin/oci-cache
    cp -a "$directory/units" run/units
    cp -a "$directory/template" "$directory"/*.sh .
    mount --bind "$directory/out" out
    pivot_root . old
    umount -l old
    exec env -i PATH=/usr/bin:/usr/sbin container=oci-cache SYSTEMD_UNIT_PATH=/run/units \
        SYSTEMD_GENERATOR_PATH=/none SYSTEMD_ENVIRONMENT_GENERATOR_PATH=/none \
        /usr/lib/systemd/systemd --system --unit=exercise.service --log-target=null --show-status=no
}

devices() {
    mount -t tmpfs -o mode=0755 dev dev
    mkdir dev/pts dev/shm
    mount -t devpts -o newinstance,ptmxmode=0666 devpts dev/pts
    ln -s pts/ptmx dev/ptmx
    touch dev/other
    local name
    for name in null zero full random urandom tty; do
        touch "dev/$name"
        mount --bind "/dev/$name" "dev/$name"
    done
}

directory=$1 metrics=$2
shift 2
"${@:-outside}"
