"""Opening what others made runs nothing and asks nobody; one's own files are run when named."""

from __future__ import annotations

import http.server
import json
import shutil
import threading
from pathlib import Path

import huggingface_hub.constants
import huggingface_hub.hf_api
import pytest

from maven_jax import own_files, recipes
from maven_jax.__main__ import main
from maven_jax.convert.hub import download
from maven_jax.errors import UserError
from maven_jax.files import write_json
from maven_jax.runtime.seal import SEAL, seal
from tests.support.stores import write_small_store

OWN = """
import flax.linen as nn
import jax.numpy as jnp
from maven_jax.types import Prediction

class Own(nn.Module):
    modalities: tuple[str, ...]

    @nn.compact
    def __call__(self, features, modality_masks, frame_mask, *, train):
        x = features[self.modalities[0]].astype(jnp.float32)
        return Prediction(va=jnp.tanh(nn.Dense(2)(x)))
"""
RECIPE = """
from maven_jax import recipes

def get_config(arg=""):
    c = recipes.load("quickstart:concat")
    c.data.store, c.data.synthetic = "store", None
    c.data.window.update(length=50, hop=50)
    c.eval.hop = 50
    c.train.update(num_epochs=1.0, batch_size=8)
    if arg == "own":
        with c.ignore_type():
            c.model = dict(name="own.py:Own")
    return c
"""


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    """A folder with a store, a model in a file and its run, a run of another and its bundle."""
    root = tmp_path_factory.mktemp("runs")
    write_small_store(root / "store", videos=4, frames=120)
    (root / "own.py").write_text(OWN)
    (root / "recipe.py").write_text(RECIPE)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        patch.setattr(own_files, "_allowed", {})
        assert main(["train", "--config", "recipe.py:own", "--workdir", "own"]) == 0
        assert main(["train", "--config", "recipe.py", "--workdir", "run"]) == 0
        assert main(["export", "--checkpoint", "run", "--out", "bundle", "--platforms=none"]) == 0
    return root


@pytest.fixture
def place(runs, tmp_path, monkeypatch) -> Path:
    """A copy of it, where nobody has named a file yet."""
    here = Path(shutil.copytree(runs, tmp_path / "here"))
    monkeypatch.chdir(here)
    monkeypatch.setattr(own_files, "_allowed", {})
    return here


OPENINGS = {
    "evaluate": ["evaluate", "--workdir", "FOLDER"],
    "export": ["export", "--checkpoint", "FOLDER", "--out", "out"],
    "predict": ["predict", "--checkpoint", "FOLDER", "clip.wav", "--out", "out"],
    "tune": ["tune", "--workdir", "FOLDER"],
    "submit": ["submit", "--workdir", "FOLDER", "--template", "rows.txt", "--out", "out.txt"],
    "fine_tune": ["train", "--config", "fine_tune:FOLDER", "--workdir", "new"],
    "init-from": ["train", "--config", "recipe.py", "--init-from", "FOLDER", "--workdir", "new"],
}


@pytest.mark.parametrize("depth", [0, 1, 2])
@pytest.mark.parametrize(
    ("command", "kind"),
    [
        (command, kind)
        for command, words in OPENINGS.items()
        for kind in ("run", "bundle")
        if kind == "run" or words[1:2] != ["--workdir"] or command == "submit"
    ],
)
def test_code_that_a_config_names_is_not_run(command, kind, depth, place, capsys):
    (place / "clip.wav").touch()
    (place / "rows.txt").write_text("image_location,valence,arousal\na/00001.jpg,,\n")
    (place / "theirs.py").write_text(f"open('{place}/ran', 'w')" + OWN)
    path = place / kind / "config.json"
    record = json.loads(path.read_text())
    config = record["config"] if kind == "run" else record
    section = {"name": "theirs.py:Own"}
    for _ in range(depth):
        section = {"name": "end_to_end", "encoders": {}, "remat": False, "fusion": section}
    config["model"] = section
    write_json(path, record)
    if kind == "bundle":
        (place / kind / SEAL).unlink()
        seal(place / kind)
    assert main([w.replace("FOLDER", kind) for w in OPENINGS[command]]) == 2
    said = capsys.readouterr().err
    assert f"{kind}/config.json" in said
    assert "theirs.py:Own" in said
    assert said.count("\n") == 1
    assert not (place / "ran").exists()


@pytest.mark.parametrize("words", [["evaluate", "--workdir"], ["tune", "--workdir"]])
def test_a_model_in_a_file_of_ones_own_is_opened_when_the_file_is_named(words, place, capsys):
    (place / "elsewhere").mkdir()
    shutil.move(place / "own.py", place / "elsewhere/own.py")
    command = [*words, "own"]
    assert main(command) == 2
    assert "--model-file FILE" in capsys.readouterr().err
    assert main([*command, "--model-file", "own.py"]) == 2
    assert "no file" in capsys.readouterr().err
    assert main([*command, "--model-file", "elsewhere/own.py"]) == 0
    assert "its code differs" not in capsys.readouterr().out


def test_code_that_is_not_that_of_the_training_is_told(place, capsys):
    (place / "own.py").write_text(OWN.replace("jnp.tanh(", "0.5 * jnp.tanh("))
    assert main(["evaluate", "--workdir", "own", "--model-file", "own.py"]) == 0
    said = capsys.readouterr().out
    assert said.count("own.py is not as it was in training, its code differs") == 1


def test_a_bundle_cannot_have_a_model_in_a_file(place, capsys):
    words = ["--checkpoint", "own", "--out", "out", "--model-file", "own.py"]
    assert main(["export", *words]) == 2
    assert "own.py:Own: no part of a bundle" in capsys.readouterr().err


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """What a hub that has nothing is asked for."""
    asked = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_error(404)

        do_HEAD = do_GET

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    address = f"http://127.0.0.1:{server.server_port}"
    for module in (huggingface_hub.constants, huggingface_hub.hf_api):
        monkeypatch.setattr(module, "ENDPOINT", address, raising=False)
    yield asked
    server.shutdown()


@pytest.mark.parametrize("source", ["owner/repo", "owner/repo@main", "elsewhere/in/a/folder", 3])
def test_a_bundle_makes_nobody_ask_the_hub(source, place, hub, capsys):
    path = place / "bundle/bundle.json"
    record = json.loads(path.read_text())
    encoders = recipes.load("tiny", "encoders").to_dict()
    encoders["visual"]["source"] = source
    record["trained_on"]["encoders"] = {m: encoders[m] for m in ("visual", "audio", "text")}
    write_json(path, record)
    (place / "bundle" / SEAL).unlink()
    seal(place / "bundle")
    (place / "clip.wav").touch()
    words = ["predict", "--checkpoint", "bundle", "clip.wav", "--out", "out"]
    assert main(words) == 2
    said = capsys.readouterr().err
    assert "bundle: its encoder of visual" in said
    assert ("--encoders.visual.source=owner/repo" in said) == str(source).startswith("owner")
    assert hub == []
    if str(source).startswith("owner"):
        assert main([*words, f"--encoders.visual.source={source}"]) == 2
        said = capsys.readouterr()
        assert "is asked for the encoder" in said.out
        assert f"{source}: no such folder" in said.err
        assert any(path.startswith("/api/models/owner/repo") for path in hub), hub


def test_nobody_is_asked_where_that_is_forbidden(hub, monkeypatch, capsys):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match="hf download owner/repo"):
        download("owner/repo")
    assert hub == []
    assert "asked" not in capsys.readouterr().out
