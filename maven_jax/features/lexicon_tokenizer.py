"""A byte-level tokenizer that knows a few words whole, for encoders without published weights."""

from __future__ import annotations

from collections.abc import Iterable

import tokenizers
from tokenizers import decoders, models, pre_tokenizers, processors

# In the order of RoBERTa's vocabulary, whose padding has the id 1.
SPECIAL = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")


def lexicon_tokenizer(words: Iterable[str]) -> tokenizers.Tokenizer:
    """Tokenizes `words` (lower case, with the space before them) as one token each.

    Everything else falls apart into beginnings of known words and single bytes, so no text is
    unknown. Built, not trained: the same words in the same order give the same ids everywhere.
    """
    level = pre_tokenizers.ByteLevel(add_prefix_space=True, use_regex=True)
    vocabulary = {token: i for i, token in enumerate(SPECIAL)}
    for symbol in sorted(pre_tokenizers.ByteLevel.alphabet()):
        vocabulary[symbol] = len(vocabulary)
    merges: list[tuple[str, str]] = []
    for word in words:
        ((symbols, _),) = level.pre_tokenize_str(word)
        for i in range(1, len(symbols)):
            beginning, letter = symbols[:i], symbols[i]
            if beginning + letter not in vocabulary:
                vocabulary[beginning + letter] = len(vocabulary)
                merges.append((beginning, letter))
    tokenizer = tokenizers.Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    tokenizer.pre_tokenizer = level
    tokenizer.decoder = decoders.ByteLevel()
    # Positional: the name of the second argument differs between versions.
    tokenizer.post_processor = processors.RobertaProcessing(
        ("</s>", vocabulary["</s>"]), ("<s>", vocabulary["<s>"])
    )
    return tokenizer
