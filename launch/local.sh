#!/usr/bin/env bash
# Runs one job in N processes on this machine.
#
#   launch/local.sh N train --config RECIPE --workdir W [--config.key=value ...]
#   launch/local.sh N evaluate --workdir W
#
# N is a number, or `gpus`: one process per GPU. Each process gets one GPU (of CUDA_VISIBLE_DEVICES,
# if that is set); without GPUs, one CPU device. What process 0 prints is shown, what the others
# print is kept in W/logs/process_<i>.log (another folder: LOGS=FOLDER).
#
# SIGTERM and Ctrl-C go to all processes: they save a checkpoint and leave; a second one ends them at
# once. The first process that fails ends all, and its exit code is the script's: the others have 20 s
# (or GRACE_S=SECONDS) to notice by themselves and to say so.
set -euo pipefail

fail() { echo "local.sh: $*" >&2; exit 2; }

(($# >= 2)) || fail "usage: launch/local.sh N train|evaluate --workdir W ..."
count=$1 arguments=("${@:2}")
workdir=''
for ((i = 1; i < ${#arguments[@]}; i++)); do
  case ${arguments[i]} in
    --workdir=*) workdir=${arguments[i]#*=} ;;
    --workdir) workdir=${arguments[i + 1]:-} ;;
  esac
done
[[ -n $workdir ]] || fail "no --workdir"
command -v maven-jax >/dev/null || fail "maven-jax is not on PATH: activate its environment"

gpus=()
if [[ ${JAX_PLATFORMS:-cuda} == *cuda* || ${JAX_PLATFORMS:-} == *gpu* ]]; then
  if [[ -n ${CUDA_VISIBLE_DEVICES+set} ]]; then
    IFS=, read -r -a gpus <<<"$CUDA_VISIBLE_DEVICES"
  elif command -v nvidia-smi >/dev/null; then
    mapfile -t gpus < <(nvidia-smi --query-gpu=index --format=csv,noheader 2>/dev/null || true)
  fi
fi
if [[ $count == gpus ]]; then
  count=${#gpus[@]}
  ((count)) || fail "no GPU here; say how many processes"
fi
[[ $count =~ ^[1-9][0-9]*$ ]] || fail "$count: expected a number of processes, or gpus"
if ((${#gpus[@]} && count > ${#gpus[@]})); then
  fail "$count processes on ${#gpus[@]} GPU(s): one process per GPU is the most"
fi

# The coordinator is process 0. Between this look and its own bind the port could be taken by
# another program; then process 0 says so and the script ends.
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
logs=${LOGS:-$workdir/logs}
mkdir -p "$logs"

pids=() signals=0 interrupted=''
# shellcheck disable=SC2329  # both are called by traps
forward() {
  ((++signals))
  interrupted=1
  # Background children of a script ignore SIGINT, so that Ctrl-C comes as SIGTERM too.
  if ((signals == 1)); then kill -TERM "${pids[@]}" 2>/dev/null || true; else end_all; fi
}
# shellcheck disable=SC2329
end_all() { kill -KILL "${pids[@]}" 2>/dev/null || true; }
trap forward TERM INT HUP
trap end_all EXIT

for ((i = 0; i < count; i++)); do
  command=(maven-jax "${arguments[@]}")
  if ((count > 1)); then
    command+=(--coordinator "127.0.0.1:$port" --num-processes "$count" --process-id "$i")
  fi
  if ((${#gpus[@]})); then command=(env "CUDA_VISIBLE_DEVICES=${gpus[i]}" "${command[@]}"); fi
  if ((i == 0)); then
    "${command[@]}" &
  else
    "${command[@]}" >"$logs/process_$i.log" 2>&1 &
  fi
  pids+=($!)
done

code=0 left=$count failed=''
while ((left)); do
  interrupted='' ended='' status=0
  wait -n -p ended "${pids[@]}" || status=$?
  if [[ -z ${ended:-} ]]; then
    # Interrupted by a signal, which has gone on to the processes.
    [[ -n $interrupted ]] && continue
    break
  fi
  ((left--)) || true
  for i in "${!pids[@]}"; do
    if [[ ${pids[i]} == "$ended" ]]; then
      which=$i
      unset 'pids[i]'
    fi
  done
  if ((status && !code)); then
    code=$status failed=$which
    echo "local.sh: process $which ended with exit code $status" >&2
    if ((left)); then (sleep "${GRACE_S:-20}" && end_all) &>/dev/null & timer=$!; fi
  fi
done
kill "${timer:-}" 2>/dev/null || true
if [[ -n $failed && $failed != 0 ]]; then
  echo "local.sh: the end of $logs/process_$failed.log:" >&2
  tail -n 20 "$logs/process_$failed.log" >&2
fi
exit "$code"
