"""The doctor: what is well passes, what is broken is named with what to do."""

from __future__ import annotations

import importlib.metadata
import json
import os
import socket
import sys
import tempfile
from pathlib import Path

import cv2
import jax
import numpy as np
import pytest

from maven_jax import media
from maven_jax.__main__ import main
from maven_jax.commands import doctor
from maven_jax.media import sample_clip
from maven_jax.progress import console
from maven_jax.runtime import compilation
from maven_jax.training import self_test


def test_this_machine_is_well(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["doctor"]) == 0
    printed = capsys.readouterr().out
    assert printed.count("PASS") == len(doctor.CHECKS) == 8
    assert "FAIL" not in printed
    assert "all is well" in printed
    assert not list(tmp_path.iterdir())
    assert not console.quiet


def test_packages_are_compared_with_what_is_required(tmp_path, monkeypatch):
    have = importlib.metadata.version
    monkeypatch.setattr(
        importlib.metadata, "version", lambda name: "0.1" if name == "flax" else have(name)
    )
    result = doctor.check_versions(tmp_path)
    assert not result.passed
    assert result.finding == "flax 0.1, needs >=0.12"
    assert result.advice.startswith("pip install")


def test_a_decoder_that_loses_frames_times_or_sound_fails(tmp_path, monkeypatch):
    assert doctor.check_decoder(tmp_path).passed
    whole = sample_clip.decode_clip

    def broken(change):
        monkeypatch.setattr(sample_clip, "decode_clip", lambda path: change(*whole(path)))
        return doctor.check_decoder(tmp_path)

    for change, reason in (
        (lambda t, b, s: (t[:-1], b[:-1], s), "23 of 24 frames"),
        (lambda t, b, s: (np.arange(24) / 25, b, s), "or other times"),
        (lambda t, b, s: (t, b[::-1], s), "another order"),
        (lambda t, b, s: (t, b, 0.5), "0.50 s of sound"),
        (lambda t, b, s: 1 / 0, "cannot be written and read"),
    ):
        result = broken(change)
        assert not result.passed
        assert reason in result.finding
        assert "av" in result.advice


def test_missing_cascades_are_named(tmp_path, monkeypatch):
    monkeypatch.setattr(cv2.data, "haarcascades", str(tmp_path))
    result = doctor.check_faces(tmp_path)
    assert not result.passed
    assert "<5" in result.advice


def test_disk_and_cache_have_to_be_writable_and_large(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert doctor.check_disk(tmp_path).passed
    monkeypatch.setattr(doctor, "_NEEDED_BYTES", 1 << 60)
    result = doctor.check_disk(tmp_path)
    assert not result.passed
    assert "make room" in result.advice
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(compilation, "cache_folder", lambda: tmp_path / "file" / "cache")
    monkeypatch.setattr(doctor, "_cache_in_use", lambda: None)
    result = doctor.check_cache(tmp_path)
    assert not result.passed
    assert "JAX_COMPILATION_CACHE_DIR" in result.advice


def test_a_training_that_does_not_learn_breaks_or_phones_home_fails(tmp_path, monkeypatch):
    def outcome(train):
        monkeypatch.setattr(self_test, "train_and_score", train)
        return doctor.check_training(tmp_path)

    assert outcome(lambda place: (0.0, 0.9)).passed
    assert not outcome(lambda place: (0.0, 0.2)).passed
    assert not outcome(lambda place: (0.0, float("nan"))).passed
    assert "division" in outcome(lambda place: 1 / 0).finding

    def curious(place: Path) -> tuple[float, float]:
        with pytest.raises(OSError, match="barred"):
            socket.create_connection(("192.0.2.1", 80), timeout=0.1)
        return 0.0, 0.9

    result = outcome(curious)
    assert not result.passed
    assert "asked the network for 192.0.2.1" in result.finding


def test_packages_that_cannot_be_loaded_are_named(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "cv2", None)
        result = doctor.check_faces(tmp_path)
    assert "OpenCV cannot be loaded: ModuleNotFoundError" in result.finding
    assert result.advice.startswith("pip install 'opencv")
    monkeypatch.setitem(sys.modules, "maven_jax.media.sample_clip", None)
    monkeypatch.delattr(media, "sample_clip")
    result = doctor.check_decoder(tmp_path)
    assert "cannot be written and read: ModuleNotFoundError" in result.finding
    assert result.advice.startswith("pip install --force-reinstall av")


def test_a_platform_that_is_not_here_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("JAX_PLATFORMS", "cuda")
    monkeypatch.setattr(jax, "devices", lambda: [][0])
    result = doctor.check_devices(tmp_path)
    assert result.finding == "JAX finds no device: IndexError: list index out of range"
    assert result.advice.startswith("unset JAX_PLATFORMS=cuda, or pip install -e '.[cuda]'")


@pytest.mark.parametrize("value", [0.2, float("nan")])
def test_a_kernel_that_is_not_its_formula_is_a_fault(tmp_path, monkeypatch, value):
    monkeypatch.setattr(doctor, "differences", lambda: iter([("LSTM", 0.001)]))
    assert doctor.check_kernels(tmp_path).passed
    monkeypatch.setattr(doctor, "differences", lambda: iter([("LSTM", 0.001), ("other", value)]))
    result = doctor.check_kernels(tmp_path)
    assert not result.passed
    assert "LSTM 1.0e-03, other" in result.finding


def test_without_a_folder_for_temporary_files_every_check_fails_with_advice(monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", "/nowhere")
    results = doctor.run_checks({"one": lambda place: doctor.Result(True, "fine")})
    assert not results["one"].passed
    assert "TMPDIR" in results["one"].advice


def test_a_failure_is_shown_with_what_to_do_and_by_the_exit_code(capsys, monkeypatch):
    def broken(place: Path) -> doctor.Result:
        assert os.path.isdir(place)
        raise RuntimeError("no such device")

    monkeypatch.setattr(
        doctor,
        "CHECKS",
        {
            "one": lambda place: doctor.Result(True, "fine"),
            "two": lambda place: doctor.Result(False, "bad", "pip install -e '.[cuda]'"),
            "three": broken,
        },
    )
    assert main(["doctor"]) == 1
    printed = capsys.readouterr().out
    assert "-> pip install -e '.[cuda]'" in printed
    assert "RuntimeError: no such device" in printed
    assert "2 of 3 failed: two, three" in printed
    monkeypatch.setattr(console, "quiet", False)
    assert main(["doctor", "--json"]) == 1
    results = json.loads(capsys.readouterr().out)
    assert results["one"] == {"passed": True, "finding": "fine", "advice": ""}
    assert [name for name, result in results.items() if not result["passed"]] == ["two", "three"]
