"""Compiled programs are found again by the next process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from maven_jax.runtime.compilation import cache_folder

PROGRAM = """
import jax
import jax.numpy as jnp
from maven_jax.runtime import compilation
compilation.keep_compiled()
hits = []
jax.monitoring.register_event_listener(lambda event, **_: hits.append(event))
jax.jit(lambda x: jnp.sin(x) @ x)(jnp.ones((8, 8))).block_until_ready()
print(sum(event == "/jax/compilation_cache/cache_hits" for event in hits))
"""


def run(home: Path, **environment: str) -> int:
    """Compiles a program in a fresh process; how many programs came from the cache."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("JAX_")}
    process = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        capture_output=True,
        text=True,
        check=True,
        env=inherited | {"XDG_CACHE_HOME": str(home)} | environment,
    )
    return int(process.stdout)


def test_a_second_process_finds_what_the_first_compiled(tmp_path):
    assert run(tmp_path) == 0
    assert list((tmp_path / "maven_jax" / "compiled").glob("*/*"))
    assert run(tmp_path) > 0


def test_the_user_names_another_folder_or_none(tmp_path):
    other = tmp_path / "other"
    run(tmp_path, JAX_COMPILATION_CACHE_DIR=str(other))
    assert list(other.iterdir())
    run(tmp_path, JAX_ENABLE_COMPILATION_CACHE="false")
    assert not (tmp_path / "maven_jax").exists()


def test_a_folder_that_cannot_be_written_is_no_error(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("")
    assert run(blocked) == 0


def test_the_folder_is_named_by_the_kind_of_processor(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    here = cache_folder()
    monkeypatch.setattr("platform.machine", lambda: "another")
    assert here.parent == tmp_path / "maven_jax" / "compiled"
    assert cache_folder() != here
