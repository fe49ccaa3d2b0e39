#!/usr/bin/env bash
# Tries what a unit has no need of, and writes to METRICS/seen what works.
# usage: probe.sh METRICS
cd /var/cache/banger || exit
metrics=$1

try() {
    local name=$1
    shift
    if "$@" >/dev/null 2>&1; then echo -n "$name=yes "; else echo -n "$name=no "; fi
}

make_suid() { touch suid && chmod u+s suid; }
write_outside() { touch /usr/local/bin/file || touch /etc/file || touch /var/lib/file; }
other_network() { [[ $(readlink /proc/self/ns/net) == "$(cat /network)" ]]; }

{
    try write-outside write_outside
    try see-homes test -e /home/user/file
    try see-tmp test -e /tmp/file
    try see-devices test -e /dev/other
    try see-kernel test -e /proc/uptime
    try share-network other_network
    try use-sockets systemctl show
    try make-namespaces unshare --uts true
    try mount mount -t tmpfs none /mnt
    try change-groups mkdir /sys/fs/cgroup/file
    try change-hostname hostname other
    try change-personality setarch --addr-no-randomize true
    try change-priority renice -n 5 $$
    try make-suid make_suid
    try gain-privileges grep -q '^NoNewPrivs:.0' /proc/self/status
    try call-anything grep -q '^Seccomp:.0' /proc/self/status
    echo
} >"$metrics/seen"
