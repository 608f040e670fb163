"""Several processes as one run: joining `jax.distributed`, who writes, what all have to agree on.

Everything here also works in a process on its own, where it does nothing.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jax._src import distributed  # the key-value store of the coordinator has no public name
from jax.sharding import Mesh

from maven_jax import progress
from maven_jax.errors import UserError

# The runtime's own limit for a process that says nothing; the last resort behind the watchdog.
HEARTBEAT_TIMEOUT_S = 50
JOIN_TIMEOUT_S = 300
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


def join_arguments(
    args: argparse.Namespace, environ: Mapping[str, str] = os.environ
) -> dict[str, Any] | None:
    """What `jax.distributed.initialize` is to be told; None for a process on its own.

    Args:
        args: the parsed flags of `add_arguments`.
        environ: variables that launchers set.

    Raises:
        UserError: flags that contradict each other, or only some of them.
    """
    given = {name: getattr(args, name) for name in _FLAGS if getattr(args, name) is not None}
    if args.distributed == "off":
        if given:
            raise UserError(f"--distributed off contradicts {_flag(next(iter(given)))}")
        return None
    _check_flags(given)
    if len(given) == len(_FLAGS):
        return given | {"cluster_detection_method": "deactivate"}
    found = _from_environment(environ)
    if found is None and args.distributed == "on":
        return given
    if found is None:
        if given:
            missing = ", ".join(_flag(name) for name in _FLAGS if name not in given)
            raise UserError(
                f"{_flag(next(iter(given)))} is given, but not {missing}; each process needs all "
                "three unless Slurm, Open MPI or a Cloud TPU slice started it"
            )
        return None
    if "OMPI_COMM_WORLD_SIZE" in environ and "coordinator" not in found | given:
        raise UserError(
            "this version of Open MPI does not tell its processes where process 0 is: "
            "add --coordinator HOST:PORT with its host and a free port"
        )
    # What launchers leave to JAX to find is marked by None.
    return {k: v for k, v in (found | given).items() if v is not None}


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _check_flags(given: dict[str, Any]) -> None:
    count, index = given.get("num_processes"), given.get("process_id")
    if count is not None and count < 1:
        raise UserError(f"--num-processes {count}: at least 1 is wanted")
    if index is not None and (index < 0 or (count is not None and index >= count)):
        raise UserError(f"--process-id {index}: 0 to --num-processes - 1 is wanted")
    if "coordinator" in given:
        host, _, port = given["coordinator"].rpartition(":")
        if not host or not port.isdigit():
            raise UserError(f"--coordinator {given['coordinator']}: HOST:PORT is wanted")


def _from_environment(environ: Mapping[str, str]) -> dict[str, Any] | None:
    """The same for what launchers announce; a key with None is for JAX to find."""
    if int(environ.get("SLURM_STEP_NUM_TASKS", 1)) > 1 and "SLURM_PROCID" in environ:
        alone_here = environ.get("SLURM_STEP_TASKS_PER_NODE", "").split("(")[0] == "1"
        return {
            "coordinator": None,
            "num_processes": int(environ["SLURM_STEP_NUM_TASKS"]),
            "process_id": int(environ["SLURM_PROCID"]),
            # JAX gives task i of a node its i-th GPU alone; a node's only task has all of them.
            "local_device_ids": () if alone_here else None,
        }
    if int(environ.get("OMPI_COMM_WORLD_SIZE", 1)) > 1:
        alone_here = environ.get("OMPI_COMM_WORLD_LOCAL_SIZE") == "1"
        # Gone since Open MPI 5.
        where = {"coordinator": None} if "OMPI_MCA_orte_hnp_uri" in environ else {}
        return where | {
            "num_processes": int(environ["OMPI_COMM_WORLD_SIZE"]),
            "process_id": int(environ["OMPI_COMM_WORLD_RANK"]),
            "local_device_ids": () if alone_here else None,
        }
    workers = environ.get("TPU_PROCESS_ADDRESSES") or environ.get("TPU_WORKER_HOSTNAMES") or ""
    if "," in workers or int(environ.get("MEGASCALE_NUM_SLICES") or 1) > 1:
        return {}
    return None


def connect(args: argparse.Namespace) -> None:
    """Joins the other processes, if there are any; has to come before anything touches a device.

    After it, every process but the first is silent.

    Args:
        args: the parsed flags of `add_arguments`.

    Raises:
        UserError: flags that cannot be, or the others were not found.
    """
    arguments = join_arguments(args)
    if arguments is None:
        return
    arguments["coordinator_address"] = arguments.pop("coordinator", None)
    # JAX's own limit of 100 s, and 300 s at the end, are too long for a run that has lost a part.
    try:
        jax.distributed.initialize(
            **arguments,
            initialization_timeout=JOIN_TIMEOUT_S,
            heartbeat_timeout_seconds=HEARTBEAT_TIMEOUT_S,
            shutdown_timeout_seconds=HEARTBEAT_TIMEOUT_S,
        )
    except (RuntimeError, ValueError) as error:
        first = str(error).strip().splitlines()[0]
        raise UserError(f"the other processes were not found: {first}") from error
    if not is_writer():
        progress.silence()


def is_writer() -> bool:
    """Whether this is the process that writes files and speaks: the first."""
    return jax.process_index() == 0


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
            # The first process may be busy for long; that it lives is the watchdog's concern.
            if "DEADLINE_EXCEEDED" not in str(error):
                raise


def describe(mesh: Mesh, batch_size: int) -> str:
    """The start-up line: processes x devices, mesh, and how many rows of a batch each process has.

    Args:
        mesh: the device mesh.
        batch_size: rows of the global batch.
    """
    here = np.vectorize(lambda device: device.process_index == jax.process_index())(mesh.devices)
    rows = int(here.any(axis=1).sum()) * batch_size // mesh.shape["data"]
    count = jax.process_count()
    share = f" ({rows} per process)" if count > 1 else ""
    return (
        f"{count} process(es) x {jax.local_device_count()} {jax.devices()[0].platform} device(s), "
        f"mesh data={mesh.shape['data']} model={mesh.shape['model']}, batch {batch_size}{share}"
    )
