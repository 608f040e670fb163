"""`launch/local.sh`: shares, output, signals and exit codes of its processes.

What it starts here is a program in the place of `maven-jax` that does what a test wants; real
training by it is in `tests/slurm` and in the tests of the command line.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.root import ROOT

pytestmark = pytest.mark.multiprocess

SCRIPT = ROOT / "launch" / "local.sh"


@pytest.fixture
def launch(tmp_path):
    """Starts the script with a program `body`, which finds its process number in `me`."""
    started = []

    def start(count, body: str, *words: str, **env: str) -> subprocess.Popen[str]:
        program = tmp_path / "bin" / "maven-jax"
        program.parent.mkdir(exist_ok=True)
        head = "import os, pathlib, signal, sys, time\nw = sys.argv[1:]\n"
        head += "me = int(w[w.index('--process-id') + 1]) if '--process-id' in w else -1\n"
        head += f"pathlib.Path('{tmp_path}', f'pid{{me}}').write_text(str(os.getpid()))\n"
        program.write_text(f"#!{sys.executable}\n{head}{body}")
        program.chmod(0o755)
        own = {k: v for k, v in os.environ.items() if k != "CUDA_VISIBLE_DEVICES"}
        own |= {"PATH": f"{program.parent}{os.pathsep}{own['PATH']}", "JAX_PLATFORMS": "cpu"}
        # Tests run in the background of a script ignore SIGINT, and would pass that on.
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        process = subprocess.Popen(
            [SCRIPT, str(count), *(words or ("train", "--workdir", str(tmp_path / "w")))],
            env=own | env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        signal.signal(signal.SIGINT, before)
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def wait_for(path: Path) -> str:
    for _ in range(6000):
        if path.exists() and path.read_text():
            return path.read_text()
        time.sleep(0.05)
    raise AssertionError(f"{path} never came")


def alive(pid: str) -> bool:
    stat = Path("/proc", pid, "stat")
    return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z"


def test_processes_are_numbered_and_the_first_is_shown(launch, tmp_path):
    body = "print(me, *w)\nprint('error of', me, file=sys.stderr)"
    out, err = launch(3, body, "evaluate", "--workdir", f"{tmp_path}/a b").communicate()
    words = out.split()
    at = words.index("--coordinator")
    host, _, port = words[at + 1].partition(":")
    assert host == "127.0.0.1"
    assert 1024 < int(port) < 65536
    assert out.startswith(f"0 evaluate --workdir {tmp_path}/a b --coordinator")
    assert words[at + 2 :] == ["--num-processes", "3", "--process-id", "0"]
    assert err == "error of 0\n"
    for i in (1, 2):
        log = (tmp_path / "a b" / "logs" / f"process_{i}.log").read_text()
        said = out.strip().replace("0 evaluate", f"{i} evaluate")
        said = said.replace("--process-id 0", f"--process-id {i}")
        assert sorted(log.splitlines()) == sorted([said, f"error of {i}"])


def test_one_process_needs_no_coordinator(launch, tmp_path):
    out, _ = launch(1, "print(*w)").communicate()
    assert out == f"train --workdir {tmp_path}/w\n"


def test_each_process_has_a_gpu(launch, tmp_path):
    body = (
        f"pathlib.Path('{tmp_path}', f'gpu{{me}}').write_text(os.environ['CUDA_VISIBLE_DEVICES'])"
    )
    process = launch("gpus", body, JAX_PLATFORMS="", CUDA_VISIBLE_DEVICES="3,5")
    process.communicate()
    assert process.returncode == 0
    assert [(tmp_path / f"gpu{i}").read_text() for i in (0, 1)] == ["3", "5"]
    process = launch(3, body, JAX_PLATFORMS="cuda", CUDA_VISIBLE_DEVICES="3,5")
    assert "3 processes on 2 GPU(s)" in process.communicate()[1]
    assert process.returncode == 2


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_goes_to_all_and_their_exit_code_is_passed_on(launch, tmp_path, number):
    body = f"""
def stop(*_):
    pathlib.Path('{tmp_path}', f'stopped{{me}}').write_text('x')
    sys.exit(0)
signal.signal(signal.SIGTERM, stop)
pathlib.Path('{tmp_path}', f'ready{{me}}').write_text('x')
time.sleep(600)
"""
    process = launch(2, body)
    for i in (0, 1):
        wait_for(tmp_path / f"ready{i}")
    process.send_signal(number)
    process.communicate()
    assert process.returncode == 0
    for i in (0, 1):
        assert (tmp_path / f"stopped{i}").exists()


def test_a_second_signal_ends_them_at_once(launch, tmp_path):
    body = f"""
def stop(*_):
    pathlib.Path('{tmp_path}', f'heard{{me}}').write_text('x')
signal.signal(signal.SIGTERM, stop)
pathlib.Path('{tmp_path}', f'ready{{me}}').write_text('x')
while True:
    time.sleep(600)
"""
    process = launch(2, body)
    for name in ("ready0", "ready1"):
        wait_for(tmp_path / name)
    process.send_signal(signal.SIGTERM)
    for name in ("heard0", "heard1"):
        wait_for(tmp_path / name)
    process.send_signal(signal.SIGTERM)
    process.communicate()
    assert process.returncode == 128 + signal.SIGKILL
    assert not any(alive((tmp_path / f"pid{i}").read_text()) for i in (0, 1))


def test_the_first_failure_ends_all(launch, tmp_path):
    body = """
if me == 1:
    print('the disk is on fire')
    sys.exit(3)
signal.signal(signal.SIGTERM, signal.SIG_IGN)
time.sleep(600)
"""
    process = launch(3, body, GRACE_S="1")
    _, err = process.communicate()
    assert process.returncode == 3
    assert "process 1 ended with exit code 3" in err
    assert "the disk is on fire" in err
    assert not any(alive((tmp_path / f"pid{i}").read_text()) for i in (0, 2))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("0", "train", "--workdir", "w"), "0: expected a number of processes"),
        (("two", "train", "--workdir", "w"), "two: expected a number of processes"),
        (("gpus", "train", "--workdir", "w"), "no GPU here"),
        (("2", "train", "--config", "x"), "no --workdir"),
    ],
)
def test_wrong_words_of_local_end_in_one_line(words, message, launch):
    process = launch(words[0], "", *words[1:])
    _, err = process.communicate()
    assert process.returncode == 2
    assert message in err
    assert len(err.splitlines()) == 1
