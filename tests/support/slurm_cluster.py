"""A Slurm cluster of one machine, started by hand on loopback, for tests.

munged, slurmctld and slurmd run with a config, keys, spools and logs of their own; a Slurm that
this machine may have is not touched.
"""

from __future__ import annotations

import os
import random
import shutil
import socket
import subprocess
import time
from pathlib import Path

INSTALL = "apt-get install munge slurmctld slurmd slurm-client"
_DAEMONS = ("munged", "slurmctld", "slurmd")
_CLIENTS = ("sbatch", "srun", "scontrol", "squeue", "scancel", "sinfo")
# Daemons live where a user's PATH does not look.
_PATH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/local/sbin", "/usr/sbin", "/sbin"])
_CONF = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ctld_port}
SlurmdPort={slurmd_port}
SlurmUser=root
AuthType=auth/munge
# A requeued job waits until its credential has expired: 2 minutes, if nothing else is said.
AuthInfo=socket={munge_socket},cred_expire=5
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/run/slurmctld.pid
SlurmdPidFile={folder}/run/slurmd.pid
SlurmctldLogFile={folder}/log/slurmctld.log
SlurmdLogFile={folder}/log/slurmd.log
MailProg=/bin/true
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
# The machine may have fewer cores than the jobs want.
SlurmdParameters=config_overrides
SchedulerParameters=bf_interval=1,sched_interval=1
JobRequeue=1
KillWait=300
MessageTimeout=60
ReturnToService=2
# jax.distributed derives its port from the number of the job: not the same one on every cluster.
FirstJobId={first_job}
NodeName=localhost NodeHostname={host} NodeAddr=127.0.0.1 CPUs=4 State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def missing() -> str:
    """What keeps a cluster from being started here, in a line; empty if nothing does."""
    lacking = [name for name in (*_DAEMONS, *_CLIENTS) if not shutil.which(name, path=_PATH)]
    if lacking:
        return f"no {', '.join(lacking)} here: {INSTALL}"
    return "" if os.geteuid() == 0 else "slurmd has to be started by root"


def _free_ports(count: int) -> list[int]:
    held = [socket.socket() for _ in range(count)]
    for s in held:
        s.bind(("127.0.0.1", 0))
    ports = [s.getsockname()[1] for s in held]
    for s in held:
        s.close()
    return ports


class Cluster:
    """A running cluster; `stop` ends it and every job on it.

    Args:
        folder: for everything it writes; a short path, for a socket lies in it.

    Raises:
        RuntimeError: it does not come up; the message holds its logs.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        for name in ("run", "log", "state", "spool"):
            (folder / name).mkdir(parents=True)
        self.env = os.environ | {"SLURM_CONF": str(folder / "slurm.conf")}
        self._daemons: list[subprocess.Popen[bytes]] = []
        host = socket.gethostname().partition(".")[0]
        ctld_port, slurmd_port = _free_ports(2)
        (folder / "slurm.conf").write_text(
            _CONF.format(
                host=host,
                folder=folder,
                ctld_port=ctld_port,
                slurmd_port=slurmd_port,
                munge_socket=folder / "run" / "munge",
                first_job=random.randrange(1000, 4000),
            )
        )
        try:
            self._start()
        except BaseException:
            self.stop()
            raise

    def _start(self) -> None:
        key = self.folder / "munge.key"
        key.write_bytes(os.urandom(1024))
        key.chmod(0o400)
        self._daemon(
            "munged",
            # pytest's folders are closed to other users, which munged would refuse.
            "--force",
            "--foreground",
            f"--key-file={key}",
            f"--socket={self.folder}/run/munge",
            f"--pid-file={self.folder}/run/munged.pid",
            f"--seed-file={self.folder}/run/munge.seed",
            f"--log-file={self.folder}/log/munged.log",
        )
        self.wait_for(lambda: (self.folder / "run" / "munge").exists(), "munged's socket")
        self._daemon("slurmctld", "-D")
        self._daemon("slurmd", "-D", "-N", "localhost")
        self.wait_for(lambda: self._answer("sinfo", "-h", "-o", "%T") == "idle", "an idle node")

    def _daemon(self, name: str, *arguments: str) -> None:
        program = shutil.which(name, path=_PATH)
        assert program is not None
        with (self.folder / "log" / f"{name}.out").open("wb") as out:
            started = subprocess.Popen(
                [program, *arguments],
                env=self.env,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
            )
        self._daemons.append(started)

    def _answer(self, *command: str) -> str:
        done = subprocess.run(command, env=self.env, capture_output=True, text=True)
        return done.stdout.strip()

    def wait_for(self, condition, what: str, timeout_s: float = 600.0) -> None:
        """Waits until `condition()`, looking several times a second.

        Raises:
            RuntimeError: it does not come true, or a daemon died.
        """
        end = time.monotonic() + timeout_s
        while not condition():
            dead = [d.args for d in self._daemons if d.poll() is not None]
            if dead or time.monotonic() > end:
                why = f"a daemon died: {dead}" if dead else f"{timeout_s:.0f} s are over"
                raise RuntimeError(f"waiting for {what}: {why}\n{self.logs()}")
            time.sleep(0.1)

    def logs(self, lines: int = 30) -> str:
        """The ends of all logs, those of jobs too."""
        files = [*self.folder.glob("log/*"), *self.folder.glob("*.log")]
        return "\n".join(
            f"== {file.name}\n" + "\n".join(file.read_text(errors="replace").splitlines()[-lines:])
            for file in sorted(files)
        )

    def run(self, *command: str, **env: str) -> str:
        """Runs a client of this cluster in its folder; returns what it printed.

        Raises:
            RuntimeError: it failed.
        """
        done = subprocess.run(
            command,
            env=self.env | env,
            cwd=self.folder,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
        )
        if done.returncode:
            raise RuntimeError(f"{command}: {done.stdout}{done.stderr}\n{self.logs()}")
        return done.stdout.strip()

    def queue(self) -> list[str]:
        """State and number of every job that is not over."""
        return self._answer("squeue", "-h", "-o", "%T %i").splitlines()

    def wait_until_empty(self) -> None:
        """Waits until no job is queued or running."""
        self.wait_for(lambda: not self.queue(), "the end of all jobs")

    def stop(self) -> None:
        """Ends all jobs and the daemons, the youngest first."""
        if len(self._daemons) == 3:
            for job in [line.split()[1] for line in self.queue()]:
                # At once, not after KillWait.
                self._answer("scancel", "--signal=KILL", "--full", job)
                self._answer("scancel", job)
            end = time.monotonic() + 60.0
            while self.queue() and time.monotonic() < end:
                time.sleep(0.1)
        for daemon in reversed(self._daemons):
            daemon.terminate()
            try:
                daemon.wait(timeout=30.0)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()
        self._daemons = []
