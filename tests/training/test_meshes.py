"""One computation on any mesh: the same numbers on simulated devices and in several processes."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
from flax import linen as nn
from flax.traverse_util import flatten_dict
from jax.sharding import AbstractMesh

from maven_jax import recipes
from maven_jax.encoders.registry import KINDS
from maven_jax.models import registry
from maven_jax.runs.metrics import read_metrics
from maven_jax.runtime.sharding import logical_rules, tree_shardings
from tests.support.processes import run_processes
from tests.support.root import ROOT
from tests.support.stores import write_small_store

# The widths that the recipes' encoders give, and a model's that takes pixels and spectra.
PUBLISHED = {"visual": 1024, "audio": 768, "text": 768}
RJCA = {"visual": 49 * 512, "audio": 512}
RJCMA = {"visual": 512, "audio": 128, "text": 768}
DESCRIBED = {"visual": 1024, "audio": 768, "description": 768}
RAW = {"visual": 48 * 48 * 3, "audio": 96 * 64, "text": 768}

# Recipe -> (widths, least share of the parameters that is split over model, and over data by FSDP).
RECIPES = {
    "maven": (PUBLISHED, 0.98, 0.99),
    "maven_released:mlp": (PUBLISHED, 0.84, 0.99),
    "maven_released:beit": (PUBLISHED, 0.98, 0.99),
    "baseline:concat": (PUBLISHED, 0.41, 0.99),
    "features": (PUBLISHED, 0.74, 0.99),
    "quickstart": (PUBLISHED, 0.1, 0.9),
    # A split LSTM would exchange its state at every frame: it is whole on every device.
    "rjca": (RJCA, 0.22, 0.97),
    "rjca:released": (RJCA, 0.30, 0.97),
    # What mixes frames, (300, 300), is whole too.
    "rjcma": (RJCMA, 0.85, 0.87),
    "grjca": (RJCMA, 0.85, 0.87),
    "hgrjca": (RJCMA, 0.85, 0.87),
    "tagf": (RJCMA, 0.79, 0.87),
    "temporal:transformer": (PUBLISHED, 0.88, 0.98),
    "temporal:mamba": (PUBLISHED, 0.88, 0.9),
    "ras_reliability": (PUBLISHED, 0.9, 0.9),
    "ras_experts": (PUBLISHED, 0.9, 0.9),
    "ras_speech": (PUBLISHED, 0.9, 0.9),
    "ras_descriptions": (DESCRIBED, 0.9, 0.9),
    "lfan": (RJCMA, 0.9, 0.99),
    "lfan:abaw3": (RJCMA, 0.9, 0.99),
    "late_fusion": (RJCMA, 0.9, 0.99),
    "late_fusion:blstm": (RJCMA, 0.0, 0.99),
    "end_to_end": (RAW, 0.98, 0.98),
}


def abstract_params(name: str) -> Any:
    """A recipe's parameters at full size, in their boxes, without making them."""
    section = recipes.plain(recipes.load(name).model)
    widths = RECIPES[name][0]
    frames = recipes.load(name).data.window.length
    model = registry.create(modalities=tuple(widths), target_mean=(0.0, 0.0), **section)

    def create() -> Any:
        key = jax.random.key(0)
        features = {m: jnp.zeros((2, frames, c)) for m, c in widths.items()}
        masks = {m: jnp.ones((2, frames), bool) for m in widths}
        keys = {"params": key, "dropout": key}
        return model.init(keys, features, masks, jnp.ones((2, frames), bool), train=False)["params"]

    return jax.eval_shape(create)


def specs_of(boxed: Any, data: int, model: int, *, fsdp: bool) -> dict[str, tuple]:
    """Path -> (logical names, mesh axes, size) of every parameter."""
    mesh = AbstractMesh((data, model), ("data", "model"))
    names = flatten_dict(nn.get_partition_spec(boxed), sep="/")
    shardings = flatten_dict(tree_shardings(mesh, boxed, logical_rules(fsdp)), sep="/")
    leaves = flatten_dict(nn.meta.unbox(boxed), sep="/")
    return {k: (names[k], shardings[k].spec, leaves[k].size, leaves[k].ndim) for k in leaves}


@pytest.mark.parametrize("name", RECIPES)
def test_every_parameter_of_every_recipe_names_its_axes_and_the_large_ones_are_split(name):
    _, least_model, least_data = RECIPES[name]
    boxed = abstract_params(name)
    for fsdp, axis, least in ((False, "model", least_model), (True, "data", least_data)):
        found = specs_of(boxed, 2, 2, fsdp=fsdp)
        unnamed = [path for path, (names, _, _, rank) in found.items() if len(names) != rank]
        assert unnamed == []
        total = sum(size for _, _, size, _ in found.values())
        split = sum(size for _, spec, size, _ in found.values() if axis in spec)
        assert split >= least * total, (axis, split / total)


def test_all_recipes_are_looked_at():
    # Without a model of their own (those above, smaller), or with two columns of parameters.
    assert set(recipes.names()) - {"systems", "fine_tune", "ridge"} == {
        name.split(":")[0] for name in RECIPES
    }


def test_first_layers_are_split_by_outputs_and_second_ones_by_inputs():
    maven = specs_of(abstract_params("maven"), 1, 2, fsdp=False)
    for path, spec in {
        "beit_0/layers/attention/query/kernel": (None, None, "model", None),
        "beit_0/layers/attention/out/kernel": (None, "model", None, None),
        "beit_0/layers/mlp/up/kernel": (None, None, "model"),
        "beit_0/layers/mlp/down/kernel": (None, "model", None),
        "beit_0/layers/mlp/down/bias": (None, None),
        "beit_1/layers/relative_position_bias/table": (None, None, "model"),
        "fusion/visual_from_audio/key_kernel": (None, "model", None),
        "fusion/visual_from_audio/out_kernel": ("model", None, None),
        "self_attention_text/value_kernel": (None, "model", None),
        "head/hidden_0/kernel": (None, "model"),
        "head/hidden_1/kernel": ("model", None),
    }.items():
        assert tuple(maven[path][1]) == spec, path
    rjca = specs_of(abstract_params("rjca"), 1, 2, fsdp=False)
    assert tuple(rjca["head/valence_hidden_0/kernel"][1]) == (None, "model")
    assert tuple(rjca["head/valence_output/kernel"][1]) == ("model", None)
    faces = specs_of(abstract_params("end_to_end"), 1, 2, fsdp=False)
    assert tuple(faces["encoder_visual/unit3/conv1/kernel"][1]) == (None, None, None, "model")
    assert tuple(faces["encoder_visual/unit3/conv2/kernel"][1]) == (None, None, "model", None)
    assert tuple(faces["encoder_audio/block0/conv/kernel"][1]) == (None, None, None, "model")
    assert tuple(faces["encoder_audio/block1/conv/kernel"][1]) == (None, None, "model", None)


# The defaults of this kind are those of version 2, which is refused.
DEBERTA_3 = {
    "relative_attention": True,
    "share_att_key": True,
    "norm_rel_ebd": "layer_norm",
    "position_biased_input": False,
    "pos_att_type": "p2c|c2p",
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_parameter_of_every_encoder_names_its_axes(kind):
    entry = KINDS[kind]
    sizes = entry.read(DEBERTA_3 if kind == "deberta-v2" else {})
    module = entry.make(sizes, dtype=jnp.float32)
    key = jax.random.key(0)
    boxed = jax.eval_shape(module.init, key, *entry.example(sizes))["params"]
    for axes in ((1, 2), (2, 1)):
        found = specs_of(boxed, *axes, fsdp=True)
        assert [p for p, (names, _, _, rank) in found.items() if len(names) != rank] == []
        total = sum(size for _, _, size, _ in found.values())
        split = sum(size for _, spec, size, _ in found.values() if any(spec))
        assert split > 0.95 * total


def test_no_rule_is_left_over():
    used = {"batch", "frames", "activation_embed"}  # of activations
    for name in ("maven", "rjca", "rjcma", "end_to_end"):
        for names, *_ in specs_of(abstract_params(name), 1, 2, fsdp=False).values():
            used.update(n for n in names if n)
    used.add("vocab")  # of RoBERTa and BERT
    assert used == {name for name, _ in logical_rules(fsdp=False)}


GLOBAL = """
import json
import jax, jax.numpy as jnp, numpy as np
from jax.sharding import NamedSharding, PartitionSpec as P
from maven_jax.training.losses import make_loss
from maven_jax.layers.batch_norm import MaskedBatchNorm
from maven_jax.runtime.sharding import make_mesh
from maven_jax.types import Prediction

rng = np.random.default_rng(0)
# Rows differ in level and in how many frames count, so that means of devices' own means are wrong.
x = (rng.normal(size=(8, 12, 4)) + np.arange(8)[:, None, None]).astype(np.float32)
mask = np.arange(12) < np.array([12, 1, 7, 12, 3, 0, 9, 2])[:, None]
targets = rng.uniform(-1, 1, (8, 12, 2)).astype(np.float32)
norm = MaskedBatchNorm()
variables = norm.init(jax.random.key(0), x, mask, train=True)
losses = {k: make_loss({k: 1.0}) for k in ("ccc", "ccc_batch", "mse")}


def compute(variables, x, mask, targets):
    y, state = norm.apply(variables, x, mask, train=True, mutable=["batch_stats"])
    prediction = Prediction(va=jnp.tanh(y[..., :2]))
    return state, {k: f(prediction, targets, mask)[0] for k, f in losses.items()}


found = []
for data, model in ((8, 1), (4, 2), (1, 8)):
    mesh = make_mesh(data, model)
    rows, whole = NamedSharding(mesh, P("data")), NamedSharding(mesh, P())
    f = jax.jit(compute, in_shardings=(whole, rows, rows, rows), out_shardings=whole)
    state, values = f(variables, x, mask, targets)
    stats = state["batch_stats"]
    found.append([np.asarray(stats["mean"]).tolist(), np.asarray(stats["var"]).tolist()]
                 + [float(values[k]) for k in losses])
print(json.dumps(found))
"""


def test_batch_norm_and_losses_are_of_the_whole_batch_on_any_mesh():
    rng = np.random.default_rng(0)
    x = (rng.normal(size=(8, 12, 4)) + np.arange(8)[:, None, None]).astype(np.float32)
    mask = np.arange(12) < np.array([12, 1, 7, 12, 3, 0, 9, 2])[:, None]
    targets = rng.uniform(-1, 1, (8, 12, 2)).astype(np.float32)
    valid = x[mask].astype(np.float64)
    va = np.tanh((x - valid.mean(0)) / np.sqrt(valid.var(0) + 1e-5))[..., :2]

    def ccc(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        cov = ((a - a.mean(0)) * (b - b.mean(0))).mean(0)
        return 2 * cov / (a.var(0) + b.var(0) + (a.mean(0) - b.mean(0)) ** 2 + 1e-8)

    per_window = [1 - ccc(p[m], t[m]).mean() for p, t, m in zip(va, targets, mask) if m.sum() > 1]
    expected = [
        np.mean(per_window),
        1 - ccc(va[mask], targets[mask]).mean(),
        np.square(va - targets)[mask].mean(),
    ]
    ((*found, last),) = [run_processes(GLOBAL, processes=1, devices=8)[0]]
    for mean, var, *losses in (*found, last):
        np.testing.assert_allclose(mean, 0.1 * valid.mean(0), atol=1e-5)
        np.testing.assert_allclose(var, 0.9 + 0.1 * valid.var(0, ddof=1), atol=1e-5)
        np.testing.assert_allclose(losses, expected, atol=1e-5)


# Whole runs through the command line. Every regulariser is on, and whatever is random has to be
# the same on any mesh; windows of validation do not fill the last batch.
COMMON = {
    "train.batch_size": 8,
    "train.eval_every_epochs": 2.0,
    "train.log_every_steps": 1,
    "eval.batch_size": 8,
    "checkpoint.every_steps": 1000,
    "data.num_threads": 1,
    "inputs.modality_dropout": 0.3,
    "inputs.noise_std": 0.2,
}
WINDOW = {"data.window.length": 20, "data.window.hop": 20, "eval.hop": 20}
SYSTEMS: dict[str, tuple[dict[str, int], dict[str, Any]]] = {
    "maven": (
        {"visual": 16, "audio": 12, "text": 8},
        WINDOW
        | {
            "model.embed_dim": 32,
            "model.num_heads": 8,
            "model.refine_dim": 32,
            "model.beit_layers": 2,
            "model.beit_heads": 8,
            "model.beit_mlp_dim": 64,
            "model.beit_dropout_rate": 0.1,
            "model.head_dims": "32,16",
            "model.dtype": "float32",
        },
    ),
    "rjca": (
        {"visual": 64, "audio": 12},
        {
            "model.positions": 4,
            "model.lstm_dim": 32,
            "model.joint_lstm_dim": 32,
            "model.joint_lstm_dropout_rate": 0.1,
            "model.correlation_dropout_rate": 0.1,
            "model.attention_dim": 8,
            "model.head_dim": 16,
            "data.window.kind": "sliding",
            "data.window.length": 16,
            "data.window.hop": 16,
            "data.window.step_s": None,
            "eval.hop": 16,
            "eval.smooth_frames": "0,0",
        },
    ),
    "rjcma": (
        {"visual": 16, "audio": 12, "text": 8},
        WINDOW
        | {
            # With seed 0, one LeakyReLU's input in step 5 is so near 0 that rounding decides its
            # slope: on 2x4 the gradient's norm jumps by 1e-4 there, and parameters end 2e-5 apart.
            "seed": 1,
            "model.channels.visual": "32,16",
            "model.channels.audio": "16,16",
            "model.channels.text": "16,16",
            "model.joint_dim": 32,
            "model.correlation_dropout_rate": 0.1,
            "model.attention_dim": 8,
            "model.head_dim": 16,
        },
    ),
}
STEPS = 20
# Only to compile sooner, on all meshes alike.
FAST = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"


def train(workdir: Path, store: Path, system: str, mesh: tuple[int, int], processes: int) -> None:
    """`maven-jax train` in so many processes, the mesh's devices shared out among them."""
    values = COMMON | SYSTEMS[system][1] | {"data.store": store}
    # 6 batches of 44 windows are an epoch: 20 steps.
    values |= {"train.num_epochs": 3.33, "mesh.data": mesh[0], "mesh.model": mesh[1]}
    command = [sys.executable, "-m", "maven_jax", "train", "--config", system]
    command += ["--workdir", str(workdir), *(f"--config.{k}={v}" for k, v in values.items())]
    if processes > 1:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            address = f"127.0.0.1:{free.getsockname()[1]}"
        command += ["--coordinator", address, "--num-processes", str(processes)]
        # Compiling takes longer on some processes than on others when cores are few.
        command += ["--stall-timeout", "0"]
    devices = mesh[0] * mesh[1] // processes
    flags = f"--xla_force_host_platform_device_count={devices} {FAST}"
    environment = os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    started: list[subprocess.Popen] = []
    logs = [workdir.with_suffix(f".{i}.log") for i in range(processes)]
    try:
        for i, log in enumerate(logs):
            own = ["--process-id", str(i)] if processes > 1 else []
            with log.open("w") as out:
                started.append(
                    subprocess.Popen(
                        [*command, *own],
                        stdout=out,
                        stderr=subprocess.STDOUT,
                        env=environment,
                        cwd=ROOT,
                    )
                )
        codes = [process.wait(timeout=1800) for process in started]
    finally:
        for process in started:
            process.kill()
            process.wait()
    assert codes == [0] * processes, "\n".join(log.read_text()[-3000:] for log in logs)


def outcome(workdir: Path) -> tuple[list[float], list[float], dict[str, np.ndarray]]:
    """Losses by step, validation cccs, and the last checkpoint's parameters and statistics."""
    rows = read_metrics(workdir)
    losses = [row["loss"] for row in rows if row["kind"] == "train"]
    cccs = [row["ccc"] for row in rows if row["kind"] == "validation"]
    cccs.append(json.loads((workdir / "eval/validation.json").read_text())["ccc"])
    step = max(int(p.name) for p in (workdir / "checkpoints").iterdir() if p.name.isdigit())
    folder = (workdir / "checkpoints" / str(step) / "weights").resolve()
    reader = ocp.PyTreeCheckpointer()
    tree = reader.metadata(folder).item_metadata.tree
    plain = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), tree)
    found = reader.restore(folder, restore_args=plain)
    return losses, cccs, flatten_dict({k: found[k] or {} for k in ("params", "model_state")})


def check_equal(one: Path, other: Path) -> None:
    """The losses and weights of two runs within 1e-5, their validation cccs within 1e-6."""
    (losses, cccs, weights), (losses2, cccs2, weights2) = outcome(one), outcome(other)
    assert len(losses) == STEPS
    np.testing.assert_allclose(losses, losses2, rtol=0, atol=1e-5)
    np.testing.assert_allclose(cccs, cccs2, rtol=0, atol=1e-6)
    assert weights.keys() == weights2.keys()
    for path, value in weights.items():
        np.testing.assert_allclose(
            value, weights2[path], rtol=0, atol=1e-5, err_msg="/".join(map(str, path))
        )


@pytest.fixture(scope="module")
def alone(tmp_path_factory) -> Callable[[str], tuple[Path, Path]]:
    """System -> (store, workdir of its run on one device)."""
    made: dict[str, tuple[Path, Path]] = {}

    def of(system: str) -> tuple[Path, Path]:
        if system not in made:
            folder = tmp_path_factory.mktemp(system)
            # Windows of neither split fill the last batch.
            videos, frames = (8, 76) if system != "rjca" else (8, 56)
            write_small_store(
                folder / "store", videos=videos, frames=frames, modalities=SYSTEMS[system][0]
            )
            train(folder / "run", folder / "store", system, (1, 1), 1)
            made[system] = folder / "store", folder / "run"
        return made[system]

    return of


def compare(alone: Any, tmp_path: Path, system: str, mesh: tuple[int, int], processes: int) -> None:
    store, run = alone(system)
    train(tmp_path / "run", store, system, mesh, processes)
    check_equal(run, tmp_path / "run")


@pytest.mark.slow
@pytest.mark.multiprocess
def test_a_mesh_of_both_axes_computes_what_one_device_does(alone, tmp_path):
    compare(alone, tmp_path, "maven", (2, 4), 1)


@pytest.mark.slow
@pytest.mark.multiprocess
@pytest.mark.parametrize("mesh", [(8, 1), (4, 2), (2, 4), (1, 8)])
@pytest.mark.parametrize("system", SYSTEMS)
def test_any_mesh_computes_what_one_device_does(alone, tmp_path, system, mesh):
    compare(alone, tmp_path, system, mesh, 1)


@pytest.mark.slow
@pytest.mark.multiprocess
# The last one's model axis goes from process to process.
@pytest.mark.parametrize(("processes", "mesh"), [(2, (2, 1)), (4, (4, 1)), (2, (1, 2))])
@pytest.mark.parametrize("system", SYSTEMS)
def test_several_processes_compute_what_one_device_does(alone, tmp_path, system, processes, mesh):
    compare(alone, tmp_path, system, mesh, processes)
