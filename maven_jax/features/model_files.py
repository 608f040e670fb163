"""Opening an encoder by its recipe: weights, the files beside them, and their identity."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import tokenizers

from maven_jax.convert import hub
from maven_jax.convert.huggingface import LoadedEncoder, load_encoder, random_encoder
from maven_jax.convert.sources import FILE_SUFFIXES, check_kind
from maven_jax.encoders.registry import kind_of
from maven_jax.errors import UserError, listing
from maven_jax.inputs import read_file, read_json
from maven_jax.progress import say

RANDOM = "random"
# What of an encoder becomes the feature: hidden states, or what its trained head makes of them.
OUTPUTS = EMBEDDING, LOGITS = "embedding", "logits"
DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}
# The packages that turn files into numbers.
PACKAGES = ("maven_jax", "jax", "flax", "transformers", "tokenizers", "pillow", "av", "soxr")
# Any of these sets of files makes a tokenizer.
TOKENIZER_FILES = (
    ("tokenizer.json",),
    ("vocab.txt",),
    ("vocab.json", "merges.txt"),
    ("spm.model",),
)


def _folder(loaded: LoadedEncoder, missing_key: str) -> Path:
    if loaded.folder is None:
        raise UserError(f"a random {loaded.kind} encoder needs {missing_key} in its recipe")
    return loaded.folder


def read_preprocessor(
    loaded: LoadedEncoder, given: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """The settings of an encoder's pre-processing: the file beside its weights, or `given`.

    A random encoder has no files, and published weights that have one are never fed otherwise.

    Raises:
        UserError: there is neither, or the file is damaged.
    """
    name = "preprocessor_config.json"
    has_file = loaded.folder is not None and (loaded.folder / name).is_file()
    if given is not None and not has_file:
        return dict(given)
    return read_json(_folder(loaded, "a preprocessor") / name, "how inputs are pre-processed")


def read_tokenizer(loaded: LoadedEncoder) -> tokenizers.Tokenizer:
    """The tokenizer beside an encoder's weights; code beside them is not run.

    Raises:
        UserError: there is none, it does not tell the positions of characters, has no
            vocabulary, or is another encoder's.
    """
    from transformers import AutoTokenizer

    folder = _folder(loaded, "tokenizer_words")
    if not any(all((folder / f).is_file() for f in files) for files in TOKENIZER_FILES):
        choices = " or ".join(" and ".join(files) for files in TOKENIZER_FILES)
        raise UserError(f"{folder}: no tokenizer; expected {choices}")
    try:
        if (folder / "spm.model").is_file() and not (folder / "tokenizer.json").is_file():
            pretrained = _by_pieces(folder)
        else:
            pretrained = AutoTokenizer.from_pretrained(
                folder, local_files_only=True, trust_remote_code=False
            )
    except Exception as error:  # whatever transformers makes of missing or damaged files
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(f"{folder}: no tokenizer: {reason}") from error
    tokenizer = getattr(pretrained, "backend_tokenizer", None)
    if tokenizer is None:
        raise UserError(f"{folder}: its tokenizer does not tell the positions of characters")
    words = set(tokenizer.get_vocab().values()) - set(tokenizer.get_added_tokens_decoder())
    if not words:
        raise UserError(f"{folder}: its tokenizer has no vocabulary: every word would be unknown")
    if max(words) >= loaded.module.config.vocab_size:
        raise UserError(
            f"{folder}: its tokenizer is not the encoder's: tokens are numbered up to "
            f"{max(words):,}, the encoder knows {loaded.module.config.vocab_size:,}"
        )
    return tokenizer


def _by_pieces(folder: Path) -> Any:
    """DeBERTa's tokenizer, which is published as SentencePiece's file alone.

    Transformers reads that by the package sentencepiece, whose releases want other versions of
    protobuf than their neighbours; the table of pieces is all that is needed.
    """
    from transformers import DebertaV2Tokenizer
    from transformers.utils import sentencepiece_model_pb2_new as sentencepiece

    model = sentencepiece.ModelProto()  # pyright: ignore[reportAttributeAccessIssue]
    model.ParseFromString(read_file(folder / "spm.model", "a tokenizer"))
    path = folder / "tokenizer_config.json"
    settings = read_json(path, "settings of a tokenizer") if path.is_file() else {}
    return DebertaV2Tokenizer(
        vocab=[(piece.piece, piece.score) for piece in model.pieces],
        unk_id=model.trainer_spec.unk_id,
        do_lower_case=bool(settings.get("do_lower_case")),
        split_by_punct=bool(settings.get("split_by_punct")),
    )


def check_source(kind: str, source: str) -> None:
    """Looks whether there is an encoder of that kind; reads no weights and downloads nothing.

    Raises:
        UserError: there is nothing, or another kind of encoder.
    """
    path = Path(source).expanduser()
    if source == RANDOM:
        return
    if path.exists():
        check_kind(path, kind)
    elif path.suffix in FILE_SUFFIXES:
        raise UserError(f"{source}: no such file")
    elif not kind_of(kind).published and not (kind == "efficientnet" and hub.is_hub_id(source)):
        raise UserError(f"{source}: no such folder; `maven-jax convert` makes {kind} encoders")
    else:
        hub.check(source)


def open_encoder(
    kind: str,
    source: str,
    dtype: str,
    seed: int | None,
    model: Mapping[str, Any] | None,
    output: str = EMBEDDING,
) -> LoadedEncoder:
    """Loads an encoder, or draws a random one for `source="random"`; lists unused tensors.

    Args:
        kind: of the encoder.
        source: folder, file, hub id, or "random".
        dtype: of the computation.
        seed: of a random encoder.
        model: config of a random encoder, or the sizes that a file of weights does not tell.
        output: "embedding", or "logits" for what its trained head says.

    Raises:
        UserError: something is missing or does not fit together.
    """
    if output not in OUTPUTS:
        raise UserError(f"encoder output {output!r}: expected one of {', '.join(OUTPUTS)}")
    if dtype not in DTYPES:
        raise UserError(f"encoder dtype {dtype!r}: expected one of {', '.join(DTYPES)}")
    if source == RANDOM:
        if seed is None or model is None:
            raise UserError(f"a random {kind} encoder needs a seed and a model")
        if output == LOGITS:
            raise UserError(f"a random {kind} encoder has no trained head; take output=embedding")
        return random_encoder(kind, dict(model), seed, DTYPES[dtype])
    check_source(kind, source)
    loaded = load_encoder(
        source, kind=kind, dtype=DTYPES[dtype], head=output == LOGITS, sizes=model
    )
    for what, names in (("not used", loaded.unused), ("missing (zeros)", loaded.missing)):
        if names:
            say(f"{source}: {len(names)} tensors {what}: {listing(names, 12)}")
    return loaded


def identity(
    loaded: LoadedEncoder, *, feature: str, dtype: str, preprocessing: Mapping[str, Any]
) -> dict[str, Any]:
    """What features depend on, as JSON for `ModalitySpec.spec`.

    Args:
        loaded: the encoder.
        feature: which of its outputs is stored.
        dtype: of the computation.
        preprocessing: of its inputs.
    """
    return {
        "encoder": loaded.kind,
        "source": loaded.source,
        "revision": loaded.revision,
        "sha256": loaded.sha256,
        "untrained": loaded.untrained,
        "feature": feature,
        "dtype": dtype,
        "preprocessing": dict(preprocessing),
        "versions": {name: importlib.metadata.version(name) for name in PACKAGES},
    }


def plain_identity(kind: str, feature: str, preprocessing: Mapping[str, Any]) -> dict[str, Any]:
    """As `identity`, for features without a network; their sha256 is that of the settings."""
    settings = json.dumps([kind, feature, dict(preprocessing)], sort_keys=True)
    return {
        "encoder": kind,
        "source": None,
        "revision": None,
        "sha256": hashlib.sha256(settings.encode()).hexdigest(),
        "untrained": False,
        "feature": feature,
        "dtype": None,
        "preprocessing": dict(preprocessing),
        "versions": {name: importlib.metadata.version(name) for name in PACKAGES},
    }


def tokenizer_sha256(tokenizer: tokenizers.Tokenizer) -> str:
    """Identifies a tokenizer by its whole definition."""
    return hashlib.sha256(tokenizer.to_str().encode()).hexdigest()
