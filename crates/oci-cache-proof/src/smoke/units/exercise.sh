#!/usr/bin/env bash
# Starts the units on the machine, and writes what was to be seen: a line for each, `NAME KEY=VALUE ...`.
# usage: exercise.sh METRICS PRUNES...: the directory of the metrics, and the units that prune
set -uo pipefail
metrics=$1
shift
cache=/var/cache/banger/oci

fill() {
    rm -rf "$cache" "$metrics"/*.prom
    cp -a /template "$cache"
    # What is copied was read.
    find "$cache" -type f -exec touch --date=-30days {} +
    # The first manifest of the index, and the last.
    first=$cache/blobs/sha256/$(grep -o 'sha256:[0-9a-f]*' "$cache/index.json" | head -n 1 | cut -d : -f 2)
    last=$cache/blobs/sha256/$(grep -o 'sha256:[0-9a-f]*' "$cache/index.json" | tail -n 1 | cut -d : -f 2)
}

start() {
    systemctl start "$1"
    echo -n "$1 result=$(systemctl show --property Result --value "$1") "
    echo -n "status=$(systemctl show --property ExecMainStatus --value "$1") "
}

metric() {
    cat "$metrics"/*.prom 2>/dev/null | sed -n "s/^$1{[^}]*} //p" | head -n 1
}

is_there() {
    if [[ -e $1 ]]; then echo yes; else echo no; fi
}

for unit in "$@"; do
    fill
    exec {open}<"$first"
    start "$unit"
    echo "freed=$(metric oci_cache_prune_freed_blobs) open=$(is_there "$first") other=$(is_there "$last")" \
        "index=$(stat -c %u:%g:%a "$cache/index.json")"
    exec {open}<&-
    if [[ $unit == oci-cache-prune.service ]]; then cp -a "$cache" /out/pruned; fi
done

fill
printf x >>"$last"
touch --date=-30days "$last"
start oci-cache-verify.service
echo "corrupt=$(metric oci_cache_verify_corrupt_blobs) open=$(is_there "$first") other=$(is_there "$last")" \
    "index=$(stat -c %u:%g:%a "$cache/index.json")"

for unit in confined-prune.service confined-verify.service free.service; do
    start "$unit"
    cat "$metrics/seen"
done
