#!/bin/sh
# Runs `convscope ARGUMENTS` as the container's only process. Stopping the container stops it cleanly.
set -eu

# serve and sql can use a read-only home; all other commands write
readable=false
case "${1:-run}" in serve | sql)
    if [ -r "${CONVSCOPE_HOME:=/data}" ] && [ -x "$CONVSCOPE_HOME" ]; then readable=true; fi ;;
esac
if [ ! -w "${CONVSCOPE_HOME:=/data}" ] && [ "$readable" = false ]; then
    echo "convscope: $CONVSCOPE_HOME cannot be written to by user $(id -u): mount a volume that it owns" >&2
    exit 1
fi
export CONVSCOPE_HOME
# for the health check, which runs as a separate process
echo "${1:-run}" > "${TMPDIR:-/tmp}/convscope-role"
exec convscope "$@"
