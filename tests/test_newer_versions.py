"""The versions that images for accelerators have: newer ones of Python, JAX and NumPy than here."""

import glob
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# Without PyTorch, whose wheels of every Python are gigabytes.
PARTS = ("tests/kernels", "tests/store", "tests/data", "tests/evaluation")
TOOLS = ("pytest", "pytest-xdist", "beartype", "pandas")


def newer_python():
    """A Python newer than 3.11 that starts, or None."""
    pyenv = os.path.expanduser(os.environ.get("PYENV_ROOT", "~/.pyenv"))
    found = [shutil.which(f"python3.{minor}") for minor in (12, 13)]
    found += sorted(glob.glob(f"{pyenv}/versions/3.1[23].*/bin/python"))
    for python in filter(None, found):
        if subprocess.run([python, "-c", "import venv"], capture_output=True).returncode == 0:
            return python
    return None


@pytest.mark.slow
def test_the_tests_pass_with_the_newest_jax_and_numpy(tmp_path):
    python = newer_python() if sys.version_info < (3, 12) else sys.executable
    if python is None:
        pytest.skip("no Python 3.12 or 3.13 here")
    subprocess.run([python, "-m", "venv", tmp_path], check=True)
    python = tmp_path / "bin" / "python"
    install = [python, "-m", "pip", "install", "-q", "-e", ROOT, "jax>=0.11", *TOOLS]
    subprocess.run(install, check=True)
    tests = [python, "-m", "pytest", "-q", "-p", "no:cacheprovider", *PARTS]
    run = subprocess.run(tests, cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout[-4000:]
    assert " passed" in run.stdout
