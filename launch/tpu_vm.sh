#!/usr/bin/env bash
# Trains on a Cloud TPU slice: creates it or takes the one that is there, installs this clone on all
# its workers, trains on all of them, and does so again after a preemption, until the run is finished.
#
#   launch/tpu_vm.sh --name NAME --zone ZONE --type TYPE --runtime VERSION [options] -- TRAIN WORDS
#   launch/tpu_vm.sh --name NAME --zone ZONE --delete
#
#   launch/tpu_vm.sh --name maven --zone us-west4-a --type v5litepod-16 \
#     --runtime v2-alpha-tpuv5-lite --spot \
#     --setup 'mountpoint -q /mnt/share || sudo mount -t nfs SERVER:/share /mnt/share' -- \
#     --config maven --config.data.store=/mnt/share/stores/affwild2 --workdir /mnt/share/runs/maven
#
# TRAIN WORDS are those of `maven-jax train`; `--distributed on` is added. The store and the workdir
# have to be at the same path on all workers and the workdir on a file system that they share and
# that outlives the slice; --setup is the place to mount one.
#
# Options:
#   --project P               Google Cloud project (default: gcloud's own)
#   --spot                    spot capacity: cheaper, may be preempted
#   --setup COMMAND           shell command for every worker, before each installation
#   --retries N               how often a run that fails on a slice that is still there is started
#                             again from its checkpoint (default 2)
#   --delete-when-finished    delete the slice once the run is finished
#   --delete                  delete the slice and its request now, and do nothing else
#   --dry-run                 print each command, run none; as if there were no slice yet and all
#                             went well
#
# Environment: POLL_S, seconds between two looks at a slice that is not ready (default 30).
#
# A slice is deleted only by the two options above; what is left of a preempted one is removed
# before it is requested again. It costs money as long as it is there.
set -euo pipefail

say() { printf '[tpu_vm.sh %(%F %T)T] %s\n' -1 "$*" >&2; }
fail() { echo "tpu_vm.sh: $*" >&2; exit 2; }

name='' zone='' type='' runtime='' setup='' retries=2
dry='' spot=() project=() delete='' delete_at_end=''
while (($#)); do
  case $1 in
    --name | --zone | --type | --runtime | --setup | --retries | --project)
      (($# > 1)) || fail "$1 has no value"
      case $1 in
        --project) project=("--project=$2") ;;
        *) printf -v "${1#--}" %s "$2" ;;
      esac
      shift 2
      ;;
    --spot) spot=(--spot) && shift ;;
    --delete) delete=1 && shift ;;
    --delete-when-finished) delete_at_end=1 && shift ;;
    --dry-run) dry=1 && shift ;;
    --) shift && break ;;
    -h | --help) sed -n '2,/^set /{/^set /!s/^# \{0,1\}//p}' "$0" && exit 0 ;;
    *) fail "unknown option $1 (the words of maven-jax train come behind --)" ;;
  esac
done
[[ -n $name && -n $zone ]] || fail "give --name and --zone"
# It becomes part of addresses there; gcloud's own rule.
[[ $name =~ ^[a-z]([-a-z0-9]{0,60}[a-z0-9])?$ ]] ||
  fail "--name $name: small letters, digits and -, a letter first"
[[ $retries =~ ^[0-9]+$ ]] || fail "--retries $retries: expected a number"
if [[ -z $dry ]]; then
  command -v gcloud >/dev/null || fail "gcloud is not on PATH: install the Google Cloud CLI"
fi

where=("--zone=$zone" "${project[@]}")
vm=(gcloud compute tpus tpu-vm)
queue=(gcloud compute tpus queued-resources)

# The words as a shell reads them again, in quotes where they need them.
quoted() {
  local word text=''
  for word in "$@"; do
    if [[ $word =~ ^[a-zA-Z0-9_@%+=:,./-]+$ ]]; then text+=" $word"; else text+=" ${word@Q}"; fi
  done
  printf %s "${text# }"
}
# Runs a command, or prints it.
run() {
  if [[ -n $dry ]]; then
    printf '+ %s\n' "$(quoted "$@")"
  else
    "$@"
  fi
}
on_workers() { # WHICH COMMAND
  run "${vm[@]}" ssh "$name" "${where[@]}" "--worker=$1" "--command=$2"
}

delete_slice() {
  run "${queue[@]}" delete "$name" "${where[@]}" --force --quiet
}
create_slice() {
  run "${queue[@]}" create "$name" "--node-id=$name" "${where[@]}" "--accelerator-type=$type" \
    "--runtime-version=$runtime" "${spot[@]}"
}

# Prints a state; nothing where there is no such thing, UNKNOWN where gcloud could not say.
state() { # tpu-vm|queued-resources FIELD
  local answer error
  error=$(mktemp)
  if answer=$(gcloud compute tpus "$1" describe "$name" "${where[@]}" "--format=value($2)" 2>"$error"); then
    echo "${answer:-UNKNOWN}"
  elif ! grep -qi 'not.\?found' "$error"; then
    cat "$error" >&2
    echo UNKNOWN
  fi
  rm -f "$error"
}

ensure_slice() {
  if [[ -n $dry ]]; then
    run "${vm[@]}" describe "$name" "${where[@]}" '--format=value(state)'
    run "${queue[@]}" describe "$name" "${where[@]}" '--format=value(state.state)'
    create_slice
    return
  fi
  local is requested last='' unknown=0
  while :; do
    is=$(state tpu-vm state)
    requested=$(state queued-resources state.state)
    [[ "$is/$requested" == "$last" ]] || say "slice $name: ${is:-none}, request: ${requested:-none}"
    last=$is/$requested
    if [[ $last == *UNKNOWN* ]]; then
      ((++unknown < 10)) || fail "gcloud cannot say in which state $name is"
    else
      unknown=0
      case $is/$requested in
        READY/ | READY/ACTIVE) return ;;
        /)
          installed=''
          create_slice || fail "the slice was not created: gcloud says why above"
          ;;
        */SUSPENDED) delete_slice || fail "what is left of $name was not deleted" ;;
        */FAILED)
          fail "the request failed; '$(quoted "${queue[@]}" describe "$name" "${where[@]}")' says why, --delete removes it"
          ;;
        PREEMPTED/ | TERMINATED/)
          run "${vm[@]}" delete "$name" "${where[@]}" --quiet || fail "what is left of $name was not deleted"
          ;;
        STOPPED/*) fail "slice $name is stopped: start it, or --delete it" ;;
      esac
    fi
    sleep "${POLL_S:-30}"
  done
}

# A run whose connection was lost may still be there, and would hold the chips.
# shellcheck disable=SC2016  # for the workers' shell
stop_earlier='old=$(cat maven_jax.pid 2>/dev/null || echo 0); if grep -qs maven-jax "/proc/$old/cmdline"; then kill -TERM "$old"; tail --pid="$old" -f /dev/null; fi; '
here=$(cd "$(dirname "$0")/.." && pwd)
installed=''
install() {
  local archive
  archive=/tmp/maven_jax.tar.gz
  [[ -n $dry ]] || archive=$(mktemp --suffix=.tar.gz)
  # What git tracks, as it is in this clone now.
  run bash -c "cd $(quoted "$here") && git ls-files -z | tar -czf $(quoted "$archive") --null -T -"
  run "${vm[@]}" scp "$archive" "$name:maven_jax.tar.gz" "${where[@]}" --worker=all
  [[ -z $setup ]] || on_workers all "$setup"
  # The images' own Python may be too old; uv brings one.
  on_workers all "$stop_earlier"'set -e; rm -rf maven_jax_launch; mkdir maven_jax_launch; tar -xzf maven_jax.tar.gz -C maven_jax_launch; cd maven_jax_launch; python3 -m pip install -q --user uv; python3 -m uv venv -q --python 3.11 .venv; python3 -m uv pip install -q --python .venv/bin/python -e ".[tpu]" -c constraints.txt'
  [[ -n $dry ]] || rm -f "$archive"
  installed=1
}

if [[ -n $delete ]]; then
  (($# == 0)) || fail "--delete takes no words of maven-jax train"
  delete_slice
  exit 0
fi
[[ -n $type && -n $runtime ]] || fail "give --type and --runtime"
workdir=''
for ((i = 1; i <= $#; i++)); do
  case ${!i} in
    --workdir=*) workdir=${!i#*=} ;;
    --workdir) next=$((i + 1)) && workdir=${!next:-} ;;
  esac
done
[[ -n $workdir ]] || fail "no --workdir among the words of maven-jax train behind --"
[[ $workdir == /* ]] || fail "--workdir $workdir: expected an absolute path, on a shared file system"

trap 'say "interrupted: slice $name is still there, and may still train; the same command continues, --delete deletes it"; exit 130' INT TERM
failures=0
while :; do
  ensure_slice
  if [[ -z $installed ]]; then
    say "installing on all workers of $name"
    install || { ((++failures <= retries)) || fail "the installation failed $failures times"; continue; }
  fi
  say "training on all workers of $name"
  code=0
  on_workers all "${stop_earlier}echo \$\$ >maven_jax.pid; exec maven_jax_launch/.venv/bin/maven-jax train $(quoted "$@") --distributed on" || code=$?
  if on_workers 0 "test -f $(quoted "$workdir/finished.json")"; then
    say "finished: $workdir"
    break
  fi
  if ((code)) && [[ $(state tpu-vm state) == READY ]]; then
    ((++failures <= retries)) || { say "failed $failures times; the slice is still there"; exit "$code"; }
    say "the run ended with exit code $code on a slice that is still there: start $((failures + 1))"
  else
    say "not finished: the slice was preempted, or the run was told to stop"
  fi
done
if [[ -n $delete_at_end ]]; then
  delete_slice
else
  say "slice $name is still there: '$0 --name $name --zone $zone --delete' deletes it"
fi
