"""Several processes as one run: how they join `jax.distributed`, agree, and stop together.

All of this works in a single process too, where it does next to nothing.
"""

from __future__ import annotations

import argparse
import contextlib
import math
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn

import jax
import numpy as np
from jax._src import distributed  # the key-value store of the coordinator has no public name
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from maven_jax import progress
from maven_jax.errors import UserError, explain
from maven_jax.runtime.lock import alone
from maven_jax.runtime.watchdog import SILENCE_S, Watchdog

# The runtime's own limit for a silent process. A last resort after the watchdog, as it ends the
# others with a stack trace. The runtime looks every half of this time, so the limit may be reached
# half of it after the last sign of life.
HEARTBEAT_TIMEOUT_S = 70
JOIN_TIMEOUT_S = 300
# Parts of the errors that collectives and the coordinator's services raise.
_SIGNS_OF_A_LOST_PEER = (
    "Gloo",
    "NCCL",
    "UNAVAILABLE",
    "DEADLINE_EXCEEDED",
    "Socket closed",
    "Connection",
    "heartbeat",
)
_FLAGS = ("coordinator", "num_processes", "process_id")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags that say how this process finds the others."""
    group = parser.add_argument_group(
        "several processes",
        "Slurm, Open MPI and Cloud TPU slices are recognised; elsewhere, give each process all "
        "three of the first.",
    )
    group.add_argument("--coordinator", metavar="HOST:PORT", help="a free port on process 0's host")
    group.add_argument("--num-processes", type=int, metavar="N")
    group.add_argument("--process-id", type=int, metavar="I", help="0 to N-1")
    group.add_argument(
        "--distributed",
        choices=("auto", "on", "off"),
        default="auto",
        help="auto: join if the flags or the environment announce several processes; on: ask JAX "
        "to find them; off: run alone",
    )
    group.add_argument(
        "--stall-timeout",
        type=float,
        default=45.0,
        metavar="SECONDS",
        help="end the run on all hosts when a process keeps the others waiting for so long "
        "(default: %(default)g; 0: never)",
    )


def join_arguments(
    args: argparse.Namespace, environ: Mapping[str, str] = os.environ
) -> dict[str, Any] | None:
    """The arguments for `jax.distributed.initialize`; None for a single process.

    Args:
        args: the parsed flags of `add_arguments`.
        environ: variables that launchers set.

    Raises:
        UserError: the flags contradict each other, or some are missing.
    """
    given = {name: getattr(args, name) for name in _FLAGS if getattr(args, name) is not None}
    if args.distributed == "off":
        if given:
            raise UserError(f"--distributed off contradicts {_flag(next(iter(given)))}")
        return None
    _check_flags(given)
    if len(given) == len(_FLAGS):
        return given | {"cluster_detection_method": "deactivate"}
    launched = _from_environment(environ)
    if launched is None and args.distributed == "on":
        return given
    if launched is None:
        if given:
            missing = ", ".join(_flag(name) for name in _FLAGS if name not in given)
            raise UserError(
                f"{_flag(next(iter(given)))} is given, but not {missing}; each process needs all "
                "three unless Slurm, Open MPI or a Cloud TPU slice started it"
            )
        return None
    if "OMPI_COMM_WORLD_SIZE" in environ and "coordinator" not in launched | given:
        raise UserError(
            "this version of Open MPI does not tell its processes where process 0 is: "
            "add --coordinator HOST:PORT with its host and a free port"
        )
    return {k: v for k, v in (launched | given).items() if v is not None}


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _check_flags(given: dict[str, Any]) -> None:
    count, index = given.get("num_processes"), given.get("process_id")
    if count is not None and count < 1:
        raise UserError(f"--num-processes {count}: expected at least 1")
    if index is not None and (index < 0 or (count is not None and index >= count)):
        raise UserError(f"--process-id {index}: expected 0 to --num-processes - 1")
    if "coordinator" in given:
        host, _, port = given["coordinator"].rpartition(":")
        if not host or not port.isdigit():
            raise UserError(f"--coordinator {given['coordinator']}: expected HOST:PORT")


def _from_environment(environ: Mapping[str, str]) -> dict[str, Any] | None:
    """The arguments that a launcher announces, None for one; JAX finds those that are None."""
    if int(environ.get("SLURM_STEP_NUM_TASKS", 1)) > 1 and "SLURM_PROCID" in environ:
        alone_here = environ.get("SLURM_STEP_TASKS_PER_NODE", "").split("(")[0] == "1"
        return {
            "coordinator": None,
            "num_processes": int(environ["SLURM_STEP_NUM_TASKS"]),
            "process_id": int(environ["SLURM_PROCID"]),
            # JAX gives task i of a node only its i-th GPU; a node's only task takes all of them.
            "local_device_ids": () if alone_here else None,
        }
    if int(environ.get("OMPI_COMM_WORLD_SIZE", 1)) > 1:
        alone_here = environ.get("OMPI_COMM_WORLD_LOCAL_SIZE") == "1"
        # The variable that tells JAX the coordinator; gone since Open MPI 5.
        coordinator = {"coordinator": None} if "OMPI_MCA_orte_hnp_uri" in environ else {}
        return coordinator | {
            "num_processes": int(environ["OMPI_COMM_WORLD_SIZE"]),
            "process_id": int(environ["OMPI_COMM_WORLD_RANK"]),
            "local_device_ids": () if alone_here else None,
        }
    workers = environ.get("TPU_PROCESS_ADDRESSES") or environ.get("TPU_WORKER_HOSTNAMES") or ""
    if "," in workers or int(environ.get("MEGASCALE_NUM_SLICES") or 1) > 1:
        return {}
    return None


@contextlib.contextmanager
def connect(args: argparse.Namespace, *, preemptible: bool) -> Iterator[Watchdog]:
    """Joins the other processes, if there are any; must come before anything touches a device.

    Within the block every process but the first is silent. With several processes an error in one
    of them ends all at once, and does not leave this block. At the end all wait for the first.

    Args:
        args: the parsed flags of `add_arguments`.
        preemptible: whether the command asks `Preemption`; otherwise SIGTERM ends it.

    Yields:
        A watchdog that has started.

    Raises:
        UserError: impossible flags, or the other processes were not found.
    """
    arguments = join_arguments(args)
    if args.stall_timeout < 0:
        raise UserError(f"--stall-timeout {args.stall_timeout:g}: expected at least 0")
    timeout_s = args.stall_timeout or math.inf
    if arguments is None:
        watchdog = Watchdog(timeout_s)
        watchdog.start()
        try:
            yield watchdog
        finally:
            watchdog.stop()
        return
    jax.config.update("jax_enable_preemption_service", preemptible)
    _join(arguments)
    state = distributed.global_state
    watchdog = Watchdog(timeout_s, state.client, state.process_id, state.num_processes or 1)
    watchdog.start()
    try:
        if not is_writer():
            progress.silence()
        yield watchdog
    except BaseException as error:
        _leave(watchdog, error, "continues" if preemptible else "begins anew")
    wait_for_first()  # nobody leaves before the first has written all
    watchdog.stop()
    jax.distributed.shutdown()


def _join(arguments: dict[str, Any]) -> None:
    """`jax.distributed.initialize` with limits that suit a run that must not hang."""
    arguments = dict(arguments)
    address = arguments["coordinator_address"] = arguments.pop("coordinator", None)
    count = arguments.get("num_processes")

    def give_up() -> None:
        # Sooner than the runtime, which would crash with a stack trace.
        print(
            f"maven-jax: not all {count or ''} processes have met at {address or 'process 0'} "
            f"within {JOIN_TIMEOUT_S} s; does every one run, and can it reach that address?",
            file=sys.stderr,
            flush=True,
        )
        os._exit(2)

    timer = threading.Timer(JOIN_TIMEOUT_S, give_up)
    timer.daemon = True
    timer.start()
    try:
        jax.distributed.initialize(
            **arguments,
            initialization_timeout=JOIN_TIMEOUT_S + 60,
            heartbeat_timeout_seconds=HEARTBEAT_TIMEOUT_S,
            shutdown_timeout_seconds=HEARTBEAT_TIMEOUT_S,
        )
    except (RuntimeError, ValueError) as error:
        first = str(error).strip().splitlines()[0]
        raise UserError(f"the other processes were not found: {first}") from error
    finally:
        timer.cancel()


def _leave(watchdog: Watchdog, error: BaseException, again: str) -> NoReturn:
    """Ends this process because of `error`, without the barriers of an orderly end.

    Args:
        watchdog: tells the others.
        error: what was raised.
        again: what the same command does when it is given again.
    """
    line = explain(error)
    if line is not None:
        watchdog.leave(line, 2)
    if isinstance(error, KeyboardInterrupt):
        watchdog.leave(f"interrupted; the same command {again}", 130)
    if isinstance(error, SystemExit):
        watchdog.leave("left early", error.code if isinstance(error.code, int) else 1)
    if any(sign in str(error) for sign in _SIGNS_OF_A_LOST_PEER):
        # Another process is gone or leaving: give the watchdog time to say which one, and why.
        time.sleep(SILENCE_S + 10)
    traceback.print_exception(error)
    first = (str(error).strip() or "no message").splitlines()[0]
    watchdog.leave(f"{type(error).__name__}: {first}", 1)


def is_writer() -> bool:
    """Whether this is the process that writes files and prints: the first."""
    return jax.process_index() == 0


def alone_as_writer(folder: Path, name: str) -> contextlib.AbstractContextManager[None]:
    """`runtime.lock.alone` in the process that writes; the others wait for what it says."""
    return alone(folder, name) if is_writer() else contextlib.nullcontext()


_agreements = 0


def agree(value: int) -> int:
    """The first process's `value`, on every process; they all have to call it in the same order.

    The others wait until the first has called it.
    """
    global _agreements
    client = distributed.global_state.client
    if client is None or jax.process_count() == 1:
        return value
    _agreements += 1
    key = f"maven_jax/agree/{_agreements}"
    if is_writer():
        client.key_value_set(key, str(value))
        return value
    while True:
        try:
            return int(client.blocking_key_value_get(key, 10_000))
        except jax.errors.JaxRuntimeError as error:
            # The first process may be busy for long; the watchdog knows whether it is alive.
            if "DEADLINE_EXCEEDED" not in str(error):
                raise


def wait_for_first() -> None:
    """Returns when the first process has called it too."""
    agree(0)


class Preemption:
    """Lets a run save before a scheduler takes its machine: SIGTERM is a request to stop.

    One of several processes has to get the signal; the runtime tells the others, and all stop at
    the same step. A context for the main thread.
    """

    def __init__(self):
        self._signalled, self._earlier_handler, self._questions = False, None, 0

    def __enter__(self) -> Preemption:
        if distributed.global_state.client is None:  # else JAX has its own handler
            self._earlier_handler = signal.signal(signal.SIGTERM, self._on_signal)
        return self

    def __exit__(self, *_: object) -> None:
        if self._earlier_handler is not None:
            signal.signal(signal.SIGTERM, self._earlier_handler)

    def _on_signal(self, *_: object) -> None:
        self._signalled = True

    def reached(self) -> bool:
        """Whether to save and stop now; every process has to ask at the same places."""
        self._questions += 1
        if distributed.global_state.preemption_sync_manager is not None:
            return multihost_utils.reached_preemption_sync_point(self._questions)
        return self._signalled


def describe(mesh: Mesh, batch_size: int) -> str:
    """The line at the start: processes x devices, mesh, and each process's rows of a batch.

    Args:
        mesh: the device mesh.
        batch_size: rows of the global batch.
    """
    ours = np.vectorize(lambda device: device.process_index == jax.process_index())(mesh.devices)
    rows = int(ours.any(axis=1).sum()) * batch_size // mesh.shape["data"]
    count = jax.process_count()
    share = f" ({rows} per process)" if count > 1 else ""
    return (
        f"{count} process(es) x {jax.local_device_count()} {jax.devices()[0].platform} device(s), "
        f"mesh data={mesh.shape['data']} model={mesh.shape['model']}, batch {batch_size}{share}"
    )
