"""Checkpoints in the wild: sharded, prefixed, old, half precision, damaged, hostile."""

import json
import os
import sys
import zipfile
from pathlib import Path

import huggingface_hub
import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
import torch
import transformers
from flax.traverse_util import flatten_dict
from safetensors.numpy import load_file, save_file

from maven_jax.convert import huggingface
from maven_jax.convert.encoder_tables import TABLES, entries
from maven_jax.convert.huggingface import load_encoder, random_encoder
from maven_jax.convert.tensor_files import read_file
from maven_jax.errors import UserError

ROBERTA = {
    "vocab_size": 20,
    "hidden_size": 8,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 12,
    "max_position_embeddings": 20,
}
DEBERTA_3 = {
    "relative_attention": True,
    "share_att_key": True,
    "norm_rel_ebd": "layer_norm",
    "position_biased_input": False,
    "pos_att_type": "p2c|c2p",
    "position_buckets": 8,
}
HUBERT = {
    "hidden_size": 8,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 12,
    "conv_dim": [6, 4],
    "conv_kernel": [10, 3],
    "conv_stride": [5, 2],
    "num_conv_pos_embeddings": 8,
    "num_conv_pos_embedding_groups": 2,
}
SWIN = {"image_size": 16, "embed_dim": 8, "depths": [2, 1], "num_heads": [2, 2], "window_size": 2}
BEIT = {
    "image_size": 32,
    "hidden_size": 8,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 12,
}
IRESNET = {
    "image_size": 10,
    "stem_dim": 4,
    "widths": [4, 6, 8],
    "depths": [2, 1, 2],
    "strides": [1, 2, 2],
    "embed_dim": 5,
}
VGGISH = {
    "num_frames": 12,
    "num_bands": 8,
    "widths": [3, 4, 5],
    "pooled": [1, 0, 1],
    "hidden_dims": [6],
    "embed_dim": 4,
}
RESNET = {"widths": [4, 6], "depths": [2, 1], "strides": [1, 2]}
R2PLUS1D = {"image_size": 12, "num_channels": 4, "num_frames": 4, "stem_dims": [3, 4]} | RESNET
AUDIO_RESNET = {"num_bands": 16, "stem_dim": 4} | RESNET
VIT = {
    "image_size": 16,
    "patch_size": 8,
    "hidden_size": 8,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 12,
}
EFFICIENTNET = {
    "image_size": 16,
    "stem_dim": 8,
    "widths": (8, 12),
    "depths": (1, 2),
    "kernels": (3, 5),
    "strides": (1, 2),
    "expansions": (1, 2),
    "head_dim": 8,
}
CONFIGS = {
    "swin": SWIN,
    "swinv2": SWIN,
    "hubert": HUBERT,
    "wav2vec2": HUBERT,
    "wavlm": HUBERT | {"num_buckets": 8, "max_bucket_distance": 20},
    "whisper": {
        "d_model": 8,
        "encoder_layers": 2,
        "encoder_attention_heads": 2,
        "encoder_ffn_dim": 8,
        "num_mel_bins": 4,
        "max_source_positions": 6,
    },
    "roberta": ROBERTA,
    "xlm-roberta": ROBERTA,
    "bert": ROBERTA,
    "mpnet": ROBERTA | {"pad_token_id": 1},
    "deberta-v2": ROBERTA | DEBERTA_3,
    "modernbert": ROBERTA | {"pad_token_id": 1},
    "convnext": {"image_size": 32, "hidden_sizes": (4, 8), "depths": (1, 2)},
    "vit": VIT,
    "vit_mae": VIT,
    "clip": {"vision_config": VIT},
    "clip_vision_model": VIT,
    "dinov2": VIT,
    "dinov2_with_registers": VIT,
    "efficientnet": EFFICIENTNET,
    "videomae": VIT | {"num_frames": 4},
    "beit": BEIT,
    "iresnet50": IRESNET,
    "mini_xception": {"image_size": 20, "stem_dims": (4, 4), "widths": (8, 8)},
    "vggish": VGGISH,
    "r2plus1d": R2PLUS1D,
    "audio_resnet18": AUDIO_RESNET,
}


def assert_same(ours, expected, **tolerance):
    ours, expected = flatten_dict(ours), flatten_dict(expected)
    assert ours.keys() == expected.keys()
    for path in ours:
        np.testing.assert_allclose(ours[path], expected[path], **tolerance, err_msg=str(path))


@pytest.fixture
def hubert(tmp_path):
    torch.manual_seed(0)
    transformers.HubertModel(transformers.HubertConfig(**HUBERT)).save_pretrained(tmp_path)
    return tmp_path


@pytest.fixture
def roberta(tmp_path):
    torch.manual_seed(0)
    config = transformers.RobertaConfig(**ROBERTA)
    transformers.RobertaModel(config, add_pooling_layer=False).save_pretrained(tmp_path)
    return tmp_path


def rewrite(folder, change):
    """Replaces model.safetensors by what `change` makes of its tensors."""
    path = folder / "model.safetensors"
    save_file(change(load_file(path)), path)


@pytest.mark.parametrize("kind", TABLES)
def test_every_parameter_has_its_place_in_the_table(kind):
    encoder = random_encoder(kind, CONFIGS[kind], 0)
    about = encoder.module if kind == "beit" else encoder.module.config
    filled = {}
    for entry in entries(kind, about):
        filled.setdefault(entry.target, []).append(entry.layer)
    parameters = flatten_dict(encoder.params | encoder.state, sep="/")
    assert filled.keys() == parameters.keys()
    for path, layers in filled.items():
        stacked = "layers/" in path
        assert layers == (list(range(len(parameters[path]))) if stacked else [None])


@pytest.mark.parametrize(
    ("model", "head"),
    [
        (
            lambda: transformers.SwinForImageClassification(transformers.SwinConfig(**SWIN)),
            {"classifier.weight", "classifier.bias"},
        ),
        (
            lambda: transformers.HubertForCTC(transformers.HubertConfig(**HUBERT)),
            {"lm_head.weight", "lm_head.bias", "hubert.masked_spec_embed"},
        ),
        (
            lambda: transformers.RobertaForTokenClassification(
                transformers.RobertaConfig(**ROBERTA)
            ),
            {"classifier.weight", "classifier.bias"},
        ),
    ],
    ids=["swin", "hubert", "roberta"],
)
def test_task_heads_are_left_out_and_listed(tmp_path, model, head):
    whole = model()
    whole.save_pretrained(tmp_path / "head")
    whole.base_model.save_pretrained(tmp_path / "bare")
    with_head, bare = load_encoder(tmp_path / "head"), load_encoder(tmp_path / "bare")
    assert set(with_head.unused) == head
    assert_same(with_head.params, bare.params)
    assert with_head.sha256 != bare.sha256
    assert not with_head.untrained


def test_shards_load_as_one_file_does(roberta, tmp_path):
    whole = load_encoder(roberta)
    model = transformers.RobertaModel.from_pretrained(roberta, add_pooling_layer=False)
    model.save_pretrained(tmp_path / "shards", max_shard_size="3KB")
    assert len(list((tmp_path / "shards").glob("model-*.safetensors"))) > 1
    sharded = load_encoder(tmp_path / "shards")
    assert_same(sharded.params, whole.params)
    assert len(sharded.sha256) == 64
    assert sharded.sha256 == load_encoder(tmp_path / "shards").sha256 != whole.sha256


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("../model.safetensors", "is not that of a file beside it"),
        ("/etc/passwd", "is not that of a file beside it"),
        ("..\\model.safetensors", "is not that of a file beside it"),
        (3, "weight is '3'"),
        ("model-9.safetensors", "this shard, named in model.safetensors.index.json, is missing"),
    ],
)
def test_index_may_name_only_files_beside_it(roberta, name, message):
    (roberta / "model.safetensors").rename(roberta / "part.safetensors")
    index = {"weight_map": {"embeddings.word_embeddings.weight": name}}
    (roberta / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(UserError, match=message):
        load_encoder(roberta)


def test_index_that_names_a_tensor_its_shard_lacks(roberta):
    (roberta / "model.safetensors").rename(roberta / "part.safetensors")
    index = {"weight_map": {"no.such.tensor": "part.safetensors"}}
    (roberta / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(UserError, match=r"part\.safetensors: has no tensor no\.such\.tensor"):
        load_encoder(roberta)


def test_old_and_new_weight_norm_names(hubert):
    new = load_encoder(hubert)
    names = {"parametrizations.weight.original0": "weight_g",
             "parametrizations.weight.original1": "weight_v"}  # fmt: skip

    def old_names(tensors):
        assert any("parametrizations" in name for name in tensors)
        for new, old in names.items():
            tensors = {name.replace(new, old): value for name, value in tensors.items()}
        return tensors

    rewrite(hubert, old_names)
    old = load_encoder(hubert)
    assert_same(old.params, new.params)
    assert old.unused == new.unused == ["masked_spec_embed"]


def test_of_several_encoders_the_one_named_so_is_taken(roberta):
    alone = load_encoder(roberta)

    def two(tensors):
        ours = {f"model.roberta.{name}": value for name, value in tensors.items()}
        return ours | {f"a.{name}": value + 1 for name, value in tensors.items()}

    rewrite(roberta, two)
    both = load_encoder(roberta)
    assert_same(both.params, alone.params)
    assert both.unused
    assert all(name.startswith("a.") for name in both.unused)


def test_old_layer_norm_names(roberta):
    new = load_encoder(roberta)

    def old_names(tensors):
        return {
            name.replace("LayerNorm.weight", "LayerNorm.gamma").replace(
                "LayerNorm.bias", "LayerNorm.beta"
            ): value
            for name, value in tensors.items()
        }

    rewrite(roberta, old_names)
    old = load_encoder(roberta)
    assert_same(old.params, new.params)
    assert old.unused == []


@pytest.mark.parametrize("half", [np.float16, ml_dtypes.bfloat16])
def test_half_precision_becomes_float32(roberta, half):
    exact = load_encoder(roberta)
    rewrite(roberta, lambda tensors: {name: v.astype(half) for name, v in tensors.items()})
    loaded = load_encoder(roberta)
    assert all(v.dtype == jnp.float32 for v in jax.tree.leaves(loaded.params))
    assert_same(loaded.params, exact.params, rtol=1e-2, atol=1e-6)


@pytest.mark.parametrize("kind", ["swin", "beit"])
def test_state_dicts_saved_by_torch_itself(tmp_path, kind):
    config = getattr(transformers, f"{kind.capitalize()}Config")(**CONFIGS[kind])
    model = getattr(transformers, f"{kind.capitalize()}Model")(config)
    model.save_pretrained(tmp_path)
    expected = load_encoder(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    torch.save({"state_dict": model.half().state_dict()}, tmp_path / "pytorch_model.bin")
    assert_same(load_encoder(tmp_path).params, expected.params, rtol=1e-2, atol=1e-4)


class Hostile:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_pickles_that_hold_more_than_tensors_are_refused(roberta):
    (roberta / "model.safetensors").unlink()
    torch.save({"weight": Hostile(str(roberta / "owned"))}, roberta / "pytorch_model.bin")
    with pytest.raises(UserError, match=r"pytorch_model\.bin: refused, .* posix\.mkdir") as e:
        load_encoder(roberta)
    assert "\n" not in str(e.value)
    assert not (roberta / "owned").exists()


def test_pickles_without_torch_ask_for_it(roberta, monkeypatch):
    safe = load_encoder(roberta)
    monkeypatch.setitem(sys.modules, "torch", None)
    assert_same(load_encoder(roberta).params, safe.params)
    (roberta / "model.safetensors").rename(roberta / "pytorch_model.bin")
    with pytest.raises(UserError, match=r"needs PyTorch \(pip install torch\)"):
        load_encoder(roberta)


@pytest.mark.parametrize("num_bytes", [0, 4, 100, -2])
@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
def test_truncated_weights_are_named(roberta, name, num_bytes):
    source = roberta / "model.safetensors"
    if name == "pytorch_model.bin":
        torch.save({"a": torch.zeros(100)}, roberta / name)
        source.unlink()
        source = roberta / name
    source.write_bytes(source.read_bytes()[:num_bytes])
    with pytest.raises(UserError, match=name) as error:
        load_encoder(roberta)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("pickled", [False, True])
def test_a_value_that_is_not_finite_is_named(roberta, value, pickled):
    name = "encoder.layer.0.output.dense.weight"

    def break_one(tensors):
        tensors[name][0, 0] = value
        return tensors

    rewrite(roberta, break_one)
    if pickled:
        tensors = load_file(roberta / "model.safetensors")
        tensors = {k: torch.from_numpy(v) for k, v in tensors.items()}
        torch.save(tensors, roberta / "pytorch_model.bin")
        (roberta / "model.safetensors").unlink()
    with pytest.raises(UserError, match=f"{name} has values that are not finite"):
        load_encoder(roberta)


def test_missing_and_misshaped_tensors_are_listed_with_shapes(roberta):
    def damage(tensors):
        del tensors["encoder.layer.1.attention.self.key.weight"]
        tensors["encoder.layer.0.intermediate.dense.weight"] = np.zeros((8, 12), np.float32)
        return tensors

    rewrite(roberta, damage)
    with pytest.raises(UserError) as error:
        load_encoder(roberta)
    message = str(error.value)
    assert "1 tensors are missing: encoder.layer.1.attention.self.key.weight (8, 8)" in message
    assert "encoder.layer.0.intermediate.dense.weight has shape (8, 12), not (12, 8)" in message


def test_missing_token_types_are_zeros_and_listed(roberta):
    name = "embeddings.token_type_embeddings.weight"
    rewrite(roberta, lambda tensors: {k: v for k, v in tensors.items() if k != name})
    encoder = load_encoder(roberta)
    assert encoder.missing == [name]
    assert (encoder.params["embeddings"]["type"]["embedding"] == 0).all()


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("{", "cannot be read as JSON"),
        ("[]", "holds no JSON object"),
        ('{"model_type": "gpt2"}', "model_type 'gpt2' is not one of"),
        ('{"model_type": "vggish"}', "model_type 'vggish' is not one of"),
        ('{"model_type": "roberta", "hidden_size": "8"}', "config.json: hidden_size is '8'"),
        ('{"model_type": "swin"}', "model_type is 'swin', not 'roberta'"),
    ],
)
def test_bad_configs_are_named(roberta, config, message):
    (roberta / "config.json").write_text(config)
    with pytest.raises(UserError, match=message) as error:
        load_encoder(roberta, kind="roberta" if "swin" in config else None)
    assert str(roberta) in str(error.value)


@pytest.mark.parametrize("kind", CONFIGS)
def test_sizes_that_cannot_be_are_refused_at_once(kind):
    lines = []
    for key, value in CONFIGS[kind].items():
        for wrong in (0, -1, 10**18, 2**24, "x", None, [], 1.5):
            broken = CONFIGS[kind] | {key: [wrong] if isinstance(value, list | tuple) else wrong}
            try:
                random_encoder(kind, broken, 0)
            except UserError as error:
                lines.append(str(error))
    assert len(lines) > len(CONFIGS[kind])
    assert not [line for line in lines if "\n" in line]


def test_folders_without_config_or_weights(tmp_path):
    with pytest.raises(UserError, match=r"config\.json: no such file"):
        load_encoder(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "roberta"} | ROBERTA))
    with pytest.raises(UserError, match=r"no weights; expected one of model\.safetensors"):
        load_encoder(tmp_path)


@pytest.fixture
def offline(tmp_path, monkeypatch):
    """The hub out of reach, its cache a folder of ours."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_hub_out_of_reach_says_what_to_do(offline):
    with pytest.raises(UserError, match="hf download nobody/nothing --local-dir DIR") as error:
        load_encoder("nobody/nothing")
    assert "\n" not in str(error.value)
    with pytest.raises(UserError, match="no such folder, and not a hub id"):
        load_encoder("/no/such/folder")


def test_hub_snapshots_in_the_cache_work_offline(roberta, offline):
    commit = "0123456789abcdef0123456789abcdef01234567"
    repository = offline / "models--someone--encoder"
    snapshot = repository / "snapshots" / commit
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    # The cache's snapshots are links to blobs elsewhere.
    for name in ("config.json", "model.safetensors"):
        Path(snapshot / name).symlink_to(roberta / name)
    encoder = load_encoder("someone/encoder")
    assert (encoder.source, encoder.revision) == ("someone/encoder", commit)
    assert encoder.sha256 == load_encoder(roberta).sha256


@pytest.mark.parametrize("kind", TABLES)
def test_untrained_encoders_follow_their_seed(kind):
    a, b, c = (random_encoder(kind, CONFIGS[kind], seed) for seed in (0, 0, 1))
    assert_same(a.params, b.params)
    assert a.sha256 == b.sha256 != c.sha256
    assert a.untrained
    assert a.source == "random"


def test_unknown_kinds_are_refused():
    with pytest.raises(UserError, match="encoder kind 'gpt2' is not one of swin, swinv2, vit"):
        huggingface.random_encoder("gpt2", {}, 0)


def test_what_a_file_makes_pytorch_say_is_cut(tmp_path):
    torch.save({"a": torch.zeros(2)}, tmp_path / "whole.pth")
    with (
        zipfile.ZipFile(tmp_path / "whole.pth") as whole,
        zipfile.ZipFile(tmp_path / "odd.pth", "w") as odd,
    ):
        for name in whole.namelist():
            odd.writestr(name, "x" * 10**6 if name.endswith("byteorder") else whole.read(name))
    with pytest.raises(UserError, match="not a PyTorch file") as error:
        read_file(tmp_path / "odd.pth")
    assert len(str(error.value)) < 1000
