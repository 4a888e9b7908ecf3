#!/bin/sh
# Runs `convscope WORDS` as the container's one process. Stopping the container stops it cleanly.
set -eu

if [ ! -w "${CONVSCOPE_HOME:=/data}" ]; then
    echo "convscope: $CONVSCOPE_HOME cannot be written to by user $(id -u): mount a volume that it owns" >&2
    exit 1
fi
export CONVSCOPE_HOME
# for the health check, which is a process of its own
echo "${1:-run}" > "${TMPDIR:-/tmp}/convscope-role"
exec convscope "$@"
