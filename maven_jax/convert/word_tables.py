"""Tables of the encoders of words; `encoder_tables` says what a line is."""

from __future__ import annotations

from maven_jax.convert.conversions import (
    ALL_HEADS_IN,
    HEADS_OUT,
    QKV,
    SAME,
    Line,
    attention,
    linear,
    norm,
)
from maven_jax.encoders.deberta import DebertaConfig
from maven_jax.encoders.modernbert import ModernBertConfig
from maven_jax.encoders.mpnet import MpnetConfig
from maven_jax.encoders.roberta import RobertaConfig


def roberta(c: RobertaConfig) -> list[Line]:
    """RoBERTa's, XLM-R's and BERT's."""
    return [
        ("embeddings.word_embeddings.weight", "embeddings/word/embedding", SAME),
        ("embeddings.position_embeddings.weight", "embeddings/position/embedding", SAME),
        *(
            [("embeddings.token_type_embeddings.weight", "embeddings/type/embedding", SAME)]
            if c.type_vocab_size
            else []
        ),
        *norm("embeddings.LayerNorm", "embeddings/norm"),
        *_bert_layers("encoder/layers"),
    ]


def _bert_layers(target: str) -> list[Line]:
    source = "encoder.layer.{}"
    return [
        *attention(
            f"{source}.attention.self",
            QKV,
            f"{source}.attention.output.dense",
            f"{target}/attention",
        ),
        *norm(f"{source}.attention.output.LayerNorm", f"{target}/attention_norm"),
        *linear(f"{source}.intermediate.dense", f"{target}/mlp/up"),
        *linear(f"{source}.output.dense", f"{target}/mlp/down"),
        *norm(f"{source}.output.LayerNorm", f"{target}/mlp_norm"),
    ]


def deberta(c: DebertaConfig) -> list[Line]:
    """DeBERTa-v3's."""
    return [
        ("embeddings.word_embeddings.weight", "word/embedding", SAME),
        *norm("embeddings.LayerNorm", "norm"),
        ("encoder.rel_embeddings.weight", "distance/embedding", SAME),
        *norm("encoder.LayerNorm", "distance_norm"),
        *_bert_layers("layers"),
    ]


def modernbert(c: ModernBertConfig) -> list[Line]:
    """ModernBERT's, whose first layer has no norm before its attention."""
    source, target = "layers.{}", "layer{}"
    norms = [("embeddings.norm", "embedding_norm"), ("final_norm", "norm")]
    norms += [(f"{source}.mlp_norm", f"{target}/mlp_norm")]
    norms += [
        (f"layers.{i}.attn_norm", f"layer{i}/attention_norm") for i in range(1, c.num_hidden_layers)
    ]
    return [
        ("embeddings.tok_embeddings.weight", "word/embedding", SAME),
        *((f"{theirs}.weight", f"{ours}/scale", SAME) for theirs, ours in norms),
        *linear(f"{source}.attn.Wqkv", f"{target}/qkv", ALL_HEADS_IN, bias=False),
        *linear(f"{source}.attn.Wo", f"{target}/out", HEADS_OUT, bias=False),
        *linear(f"{source}.mlp.Wi", f"{target}/up", bias=False),
        *linear(f"{source}.mlp.Wo", f"{target}/down", bias=False),
    ]


def mpnet(c: MpnetConfig) -> list[Line]:
    """MPNet's."""
    table = ("encoder.relative_attention_bias.weight", "relative_position_bias", SAME)
    return [*roberta(c), table]
