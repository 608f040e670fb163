"""Encoders trained with the fusion: crops, spectrograms, stages, weights to start from."""

from __future__ import annotations

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from maven_jax import recipes
from maven_jax.convert.huggingface import random_encoder
from maven_jax.convert.native import save_encoder
from maven_jax.errors import UserError
from maven_jax.models import registry
from maven_jax.models.end_to_end import face_images, log_mel_examples
from maven_jax.runs.checkpoint import Checkpoints
from maven_jax.runs.evaluate import evaluate
from maven_jax.store.reader import Store
from maven_jax.store.schema import Frames, ModalitySpec
from maven_jax.store.writer import PlannedVideo, StoreWriter
from maven_jax.training.stages import Groups
from maven_jax.training.train import train
from tests.support.recipes_for_tests import small_recipe

SIDE, CROP, COLUMNS, BANDS = 10, 8, 8, 8
FACES = dict(image_size=CROP, stem_dim=4, widths=(4, 8), depths=(1, 1), strides=(2, 2), embed_dim=8)
SOUND = dict(
    num_frames=COLUMNS, num_bands=BANDS, widths=(4, 4), pooled=(1, 1), hidden_dims=(8,), embed_dim=6
)
ENCODERS = {"visual": {"kind": "iresnet50", **FACES}, "audio": {"kind": "vggish", **SOUND}}
FUSION = dict(name="concat_mlp", embed_dim=8, hidden_dims=(16,), dropout_rate=0.0, head="va")


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Store:
    """Pictures whose brightness is valence, sound whose loudness is arousal, useless words."""
    path = tmp_path_factory.mktemp("raw") / "s"
    rng = np.random.default_rng(0)
    planned = [
        PlannedVideo(f"{split}_{i}", split, 60, f"{split}_{i}")
        for split, count in (("train", 6), ("validation", 2))
        for i in range(count)
    ]
    writer = StoreWriter(
        path,
        videos=planned,
        modalities={
            "visual": ModalitySpec("visual", SIDE * SIDE * 3, {"encoder": "crops"}, "uint8"),
            "audio": ModalitySpec("audio", COLUMNS * BANDS, {"encoder": "log_mel"}),
            "text": ModalitySpec("text", 4, {"encoder": "random"}),
        },
        chunk_frames=20,
        shard_bytes=2**16,
        provenance={},
    )
    for video in planned:
        phase = rng.uniform(0, 2 * np.pi, 2)
        targets = 0.8 * np.sin(np.arange(60)[:, None] / 8 + phase)
        pictures = 128 + 90 * targets[:, :1] + 10 * rng.normal(size=(60, SIDE * SIDE * 3))
        block = Frames(
            time_s=np.arange(60) / 25.0,
            targets=targets.astype(np.float32),
            target_mask=np.ones(60, bool),
            segment_id=np.zeros(60, np.int32),
            features={
                "visual": pictures.clip(0, 255).astype(np.uint8),
                "audio": (targets[:, 1:] + rng.normal(size=(60, COLUMNS * BANDS))).astype(
                    np.float32
                ),
                "text": rng.normal(size=(60, 4)).astype(np.float32),
            },
            masks={m: rng.random(60) > 0.05 for m in ("visual", "audio", "text")},
        )
        with writer.video(video.video, 25.0, 2.4) as out:
            out.append(block)
    return writer.finish()


def end_to_end_recipe(store: Store, **changes):
    config = small_recipe(store.path, "quickstart:concat")
    config.data.window.update(length=20, hop=20)
    config.eval.hop = 20
    config.inputs.update(noise_std=0.0, modality_dropout=0.0)
    model = dict(name="end_to_end", encoders=ENCODERS, fusion=FUSION, remat=True, dtype="bfloat16")
    with config.ignore_type():
        config.model = model
        config.inputs.standardize = dict(audio="none", text="store")
        config.inputs.video_offset_std = 0.0
        config.train.update(num_epochs=8.0, eval_every_epochs=1.0, **changes)
        # A negative patience is used up at once: each evaluation begins the next stage.
        config.train.plateau.update(factor=1.0, patience=-1, stop_patience=None)
    config.optimizer.update(
        learning_rate=0.01, warmup_epochs=0.0, schedule_kind="constant", weight_decay=0.0
    )
    return config


def read(workdir: Path, step: int) -> dict:
    checkpoints = Checkpoints(workdir, keep_latest=1, keep_best=1, read_only=True)
    weights = checkpoints.read_weights(step)
    checkpoints.close()
    return weights


def equal(a, b) -> bool:
    return all(map(np.array_equal, jax.tree.leaves(a), jax.tree.leaves(b)))


@pytest.mark.slow
def test_a_run_starts_from_encoders_and_unfreezes_them(store, tmp_path, capsys):
    folders = {}
    for kind, name, config in (("iresnet50", "visual", FACES), ("vggish", "audio", SOUND)):
        encoder = random_encoder(kind, config, seed=5)
        folders[f"encoder_{name}"] = str(tmp_path / name)
        save_encoder(
            tmp_path / name,
            kind,
            config,
            encoder.params,
            encoder.state,
            source="random",
            sha256=encoder.sha256,
        )
        folders[name] = encoder
    init = {k: v for k, v in folders.items() if k.startswith("encoder_")}
    config = end_to_end_recipe(
        store, init=init, stages=("^encoder_visual/(unit1|embedding)", "^encoder_")
    )
    config.checkpoint.keep.keep_latest = 100
    scores = train(config, tmp_path / "run")
    output = capsys.readouterr().out
    assert "encoder_visual starts from" in output
    begins = [
        int(line.split(":")[0].split()[1])
        for line in output.splitlines()
        if "the best so far, are put back" in line
    ]
    assert len(begins) == 2
    first, middle, last = (
        read(tmp_path / "run", s) for s in (begins[0], begins[1], 8 * begin_step(output))
    )
    given = folders["visual"].params
    # Until the first boundary nothing of the encoders has moved, until the second only one group.
    for key, value in first["params"]["encoder_visual"].items():
        assert equal(value, given[key]), key
    for key, value in middle["params"]["encoder_visual"].items():
        joined = key in ("unit1", "embedding", "embedding_norm")
        assert equal(value, given[key]) != joined, key
    assert equal(middle["params"]["encoder_audio"], folders["audio"].params)
    assert not equal(last["params"]["encoder_audio"], folders["audio"].params)
    # The encoders' batch norms never learn their statistics anew.
    for weights in (first, last):
        saved = weights["model_state"]["batch_stats"]["encoder_visual"]
        assert equal(saved, folders["visual"].state["batch_stats"])
    assert scores["ccc"] > 0.3
    again = evaluate(tmp_path / "run", "validation", which="latest")
    assert again["ccc"] == pytest.approx(scores["ccc"], abs=1e-6)


def begin_step(output: str) -> int:
    """Steps per epoch, as the run says."""
    (line,) = [x for x in output.splitlines() if "steps per epoch" in x]
    return int(line.split(" steps per epoch")[0].split()[-1])


def test_weights_of_another_shape_or_name_are_refused(store, tmp_path):
    encoder = random_encoder("vggish", SOUND | {"embed_dim": 5}, seed=0)
    folder = tmp_path / "sound"
    save_encoder(
        folder,
        "vggish",
        SOUND | {"embed_dim": 5},
        encoder.params,
        encoder.state,
        source="random",
        sha256=encoder.sha256,
    )
    config = end_to_end_recipe(store, init={"encoder_audio": str(folder)})
    with pytest.raises(UserError, match=r"train.init.encoder_audio: .* of shape \(5,\)"):
        train(config, tmp_path / "run")
    config = end_to_end_recipe(store, init={"encoder_visual": str(folder)})
    with pytest.raises(UserError, match=r"train.init.encoder_visual: .* lacks encoder_visual/"):
        train(config, tmp_path / "run")
    config = end_to_end_recipe(store, init={"encoder_sound": str(folder)})
    with pytest.raises(UserError, match="the model has no 'encoder_sound'; it has encoder_audio"):
        train(config, tmp_path / "run")
    config = end_to_end_recipe(store, init={"encoder_audio": str(tmp_path / "none")})
    with pytest.raises(UserError, match="none: no such folder"):
        train(config, tmp_path / "run")
    assert not (tmp_path / "run/config.json").exists()  # the right folder may be named now


def test_faces_are_cut_in_the_middle_or_anywhere_with_their_window():
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 256, (40, 3, SIDE, SIDE, 3)).astype(np.uint8)
    flat = jnp.asarray(pictures.reshape(40, 3, -1))
    scaled = (pictures / 255.0 - 0.5) / 0.5
    middle = face_images(flat, CROP, 3, None)
    np.testing.assert_allclose(middle, scaled[:, :, 1:-1, 1:-1], atol=1e-6)
    spare = SIDE - CROP + 1
    seen = set()
    for window, cut in zip(scaled, np.array(face_images(flat, CROP, 3, jax.random.key(0)))):
        hits = [
            (y, x, flip)
            for y in range(spare)
            for x in range(spare)
            for flip in (1, -1)
            if np.allclose(cut, window[:, y : y + CROP, x : x + CROP][:, :, ::flip], atol=1e-6)
        ]
        assert len(hits) == 1  # one place for all frames of the window
        seen.add(hits[0])
    assert len(seen) > 10


@pytest.mark.parametrize(
    ("function", "width"),
    [
        (lambda x: face_images(x, CROP, 3, None), SIDE * SIDE * 3 + 1),
        (lambda x: face_images(x, CROP, 3, None), (CROP - 1) ** 2 * 3),
        (lambda x: log_mel_examples(x, COLUMNS, BANDS), COLUMNS * BANDS + 1),
    ],
)
def test_frames_of_another_size_are_refused(function, width):
    with pytest.raises(UserError, match=f"encoders: {width} values a frame do not make"):
        function(jnp.zeros((1, 2, width)))


def model_and_inputs(**encoders):
    model = registry.create(
        "end_to_end",
        modalities=("visual", "audio", "text"),
        encoders=ENCODERS | encoders,
        fusion=FUSION,
        remat=False,
    )
    rng = np.random.default_rng(0)
    features = {
        "visual": jnp.asarray(rng.integers(0, 256, (2, 5, SIDE * SIDE * 3)), jnp.uint8),
        "audio": jnp.asarray(rng.normal(size=(2, 5, COLUMNS * BANDS)), jnp.float32),
        "text": jnp.asarray(rng.normal(size=(2, 5, 4)), jnp.float32),
    }
    masks = {m: jnp.asarray(rng.random((2, 5)) > 0.3) for m in features}
    return model, features, masks, jnp.ones((2, 5), bool)


def test_what_lies_under_a_mask_changes_neither_output_nor_gradients():
    model, features, masks, frame_mask = model_and_inputs()
    variables = model.init(jax.random.key(0), features, masks, frame_mask, train=False)

    def loss(params, features):
        out = model.apply({**variables, "params": params}, features, masks, frame_mask, train=False)
        return (out.va**2).sum()

    garbage = {
        m: jnp.where(masks[m][..., None], x, 255 if m == "visual" else jnp.nan).astype(x.dtype)
        for m, x in features.items()
    }
    results = [jax.value_and_grad(loss)(variables["params"], f) for f in (features, garbage)]
    jax.tree.map(np.testing.assert_array_equal, *results)


def test_encoders_that_take_no_raw_frames_are_refused():
    model, *inputs = model_and_inputs(text={"kind": "bert"})
    with pytest.raises(UserError, match=r"encoders.text.kind='bert': expected iresnet50 or vggish"):
        model.init(jax.random.key(0), *inputs, train=False)


def test_the_recipes_stages_fit_the_published_sizes():
    config = recipes.load("end_to_end:valence")
    assert recipes.override(config, ["--config.train.init.encoder_audio=some/folder"])
    section = recipes.plain(config.model)
    model = registry.create(section.pop("name"), modalities=config.data.modalities, **section)
    widths = {"visual": 48 * 48 * 3, "audio": 96 * 64, "text": 768}
    shape = (1, config.data.window.length)
    params = jax.eval_shape(
        lambda: model.init(
            jax.random.key(0),
            {m: jnp.zeros((*shape, c)) for m, c in widths.items()},
            dict.fromkeys(widths, jnp.ones(shape, bool)),
            jnp.ones(shape, bool),
            train=False,
        )["params"]
    )
    groups = Groups(config.train.stages, params)
    trained = [groups.trained(params, stage) for stage in range(len(groups))]
    assert [sorted(t) for t in trained] == [
        ["fusion"],
        ["encoder_visual", "fusion"],
        ["encoder_visual", "fusion"],
        ["encoder_audio", "encoder_visual", "fusion"],
    ]
    units = [sum(k.startswith("unit") for k in t.get("encoder_visual", ())) for t in trained]
    assert units == [0, 3, 17, 24]
