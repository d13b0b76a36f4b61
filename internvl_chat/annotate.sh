#!/bin/sh
# Make training data from raw videos, on one process or several.
#
#   GPUS=8 sh internvl_chat/annotate.sh VIDEOS --out DIR [--flags]
#
# Environment:
#   GPUS     processes on this machine (1); without a GPU they run on the CPU
#   PYTHON   the Python to run (python)
#   NNODES, NODE_RANK, MASTER_ADDR, MASTER_PORT   for several machines: the same command on each
#
# Flags are those of `distime annotate --help`. A killed run continues when it is started again, also
# on another number of processes.
set -eu

case "${1:-}" in
  ''|-h|--help)
    sed -n '2,/^set /{/^#/s/^# \{0,1\}//p;}' "$0"
    test -n "${1:-}"
    exit ;;
esac

HERE=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
exec sh "$HERE/processes.sh" annotate "$@"
