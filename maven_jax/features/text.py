"""Words to features: RoBERTa or BERT gives a vector to each word, and words spread over frames."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from maven_jax.errors import UserError, listing
from maven_jax.features.device import Clock, DeviceFunction, bucket_of, buckets, pad_rows
from maven_jax.features.lexicon_tokenizer import lexicon_tokenizer
from maven_jax.features.model_files import (
    EMBEDDING,
    identity,
    open_encoder,
    read_tokenizer,
    tokenizer_sha256,
)
from maven_jax.media.align import crossfade, overlapping, segment_ids, spread_words
from maven_jax.media.problems import printable
from maven_jax.media.transcripts import Segment

# If a larger share of the words is unknown, the tokenizer is of another language.
MOST_UNKNOWN = 0.2


@dataclasses.dataclass(frozen=True)
class SegmentWords:
    """The words of one segment.

    Attributes:
        start_s, end_s: of the segment, seconds.
        spans_s: (n, 2) start and end of every word, their middles increasing.
        vectors: (n, c) float32.
    """

    start_s: float | int
    end_s: float | int
    spans_s: np.ndarray
    vectors: np.ndarray

    @property
    def centres_s(self) -> np.ndarray:
        """(n,) middle of every word."""
        return self.spans_s.mean(axis=1)


class WordStream:
    """The words of a whole transcript, interpolated at frame times.

    Attributes:
        notes: what was odd about the words, in sentences.
    """

    def __init__(
        self, segments: Sequence[SegmentWords], dim: int, notes: Sequence[str] = ()
    ) -> None:
        self.notes = tuple(notes)
        self._segments, self._dim = segments, dim
        self._starts = np.array([s.start_s for s in segments], np.float64)
        self._ends = np.array([s.end_s for s in segments], np.float64)

    def at(self, times_s: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Vectors at increasing frame times (t,).

        Within a segment they are linear between the centres of its words, and constant before the
        first and behind the last centre. Nothing is carried from one segment into another.

        Returns:
            (t, dim) float32, zero where masked; mask (t,), False outside segments and in segments
            without words; (t,) int32 index of the segment, -1 for none.
        """
        ids = segment_ids(self._starts, self._ends, times_s)
        out, mask = np.zeros((len(times_s), self._dim), np.float32), np.zeros(len(times_s), bool)
        for index in np.unique(ids[ids >= 0]):
            words = self._segments[index]
            centres_s = words.centres_s
            if not len(centres_s):
                continue
            inside = ids == index
            numbers = np.arange(len(centres_s), dtype=np.float64)
            position = np.interp(times_s[inside], centres_s, numbers)
            left = position.astype(int)
            right = np.minimum(left + 1, len(centres_s) - 1)
            weight = (position - left).astype(np.float32)[:, None]
            out[inside] = words.vectors[left] * (1 - weight) + words.vectors[right] * weight
            mask[inside] = True
        return out, mask, ids


class HeldWordStream:
    """The words of a whole transcript, each held while it is spoken (RJCMA, 2024, section 3.1).

    Attributes:
        notes: what was odd about the words, in sentences.
    """

    def __init__(
        self, segments: Sequence[SegmentWords], dim: int, notes: Sequence[str] = ()
    ) -> None:
        self.notes = tuple(notes)
        self._starts = np.array([s.start_s for s in segments], np.float64)
        self._ends = np.array([s.end_s for s in segments], np.float64)
        self._spans = np.concatenate([np.zeros((0, 2)), *(s.spans_s for s in segments)])
        vectors = [s.vectors for s in segments]
        self._vectors = np.concatenate([np.zeros((0, dim), np.float32), *vectors])

    def at(self, times_s: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Vectors at increasing frame times (t,).

        Where words overlap, the one that began last counts.

        Returns:
            (t, dim) float32, zero where masked; mask (t,), False where no word is spoken; (t,)
            int32 index of the segment, -1 for none.
        """
        near = (self._spans[:, 0] <= times_s[-1] + 1) & (self._spans[:, 1] >= times_s[0] - 1)
        spans, vectors = self._spans[near], self._vectors[near]
        words = segment_ids(spans[:, 0], spans[:, 1], times_s)
        mask = words >= 0
        out = np.zeros((len(times_s), vectors.shape[1]), np.float32)
        out[mask] = vectors[words[mask]]
        return out, mask, segment_ids(self._starts, self._ends, times_s)


def timed_words(segment: Segment) -> tuple[list[str], np.ndarray]:
    """The words of a segment in order, and start and end of each (n, 2) in seconds.

    Words without times of their own are spread over the segment's (`align.spread_words`).
    """
    if segment.words:
        timed = sorted(segment.words, key=lambda w: w.start_s + w.end_s)
        timed = [w for w in timed if w.text.strip()]
        spans = np.array([(w.start_s, w.end_s) for w in timed], np.float64)
        return [w.text.strip() for w in timed], spans.reshape(-1, 2)
    texts = segment.text.split()
    return texts, spread_words(texts, segment.start_s, segment.end_s)


class TextEncoder:
    """RoBERTa features of the words of a transcript (kinds `roberta`, `xlm-roberta`).

    Attributes:
        dim: channels of a feature.
        spec: identity of the features, for the store.
        stored_dtype: of the features in the store.
    """

    stream_type: type[WordStream] | type[HeldWordStream] = WordStream
    stored_dtype = "float16"

    def __init__(
        self,
        *,
        source: str,
        dtype: str,
        batch_size: int,
        length_buckets: int,
        overlap_tokens: int,
        kind: str = "roberta",
        output: str = EMBEDDING,
        seed: int | None = None,
        model: Mapping[str, Any] | None = None,
        tokenizer_words: Sequence[str] | None = None,
    ) -> None:
        """Loads (or, for `source="random"`, draws) the encoder.

        Args:
            source: Hugging Face folder or hub id ("owner/name@revision"), or "random".
            dtype: "float32" or "bfloat16", of the computation; features are float32.
            batch_size: token windows per call, on all devices together.
            length_buckets: number of window lengths compiled for.
            overlap_tokens: tokens that neighbouring windows of a long segment share.
            kind: of the encoder.
            output: "embedding", or "logits" for what its trained head says of a whole segment,
                which is then the vector of each of its words.
            seed: of a random encoder.
            model: Hugging Face config of a random encoder.
            tokenizer_words: words that a random encoder's tokenizer knows whole.
        """
        loaded = open_encoder(kind, source, dtype, seed, model, output)
        self._tokenizer = (
            lexicon_tokenizer(tokenizer_words)
            if loaded.untrained and tokenizer_words is not None
            else read_tokenizer(loaded)
        )
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        config = loaded.module.config
        self._pad, longest = config.pad_token_id, config.max_tokens
        self._special = self._special_tokens()
        self._window = longest - sum(map(len, self._special))
        self._overlap = overlap_tokens
        if not 0 <= 2 * overlap_tokens <= self._window:
            raise UserError(
                f"encoders.text: overlap_tokens {overlap_tokens} exceeds half of {self._window}"
            )

        options = {} if loaded.head else self._options

        def hidden(params: Any, ids: jax.Array, mask: jax.Array) -> jax.Array:
            encoder, head = params
            out: Any = loaded.module.apply({"params": encoder}, ids, mask, **options)
            if loaded.head is not None:  # over the first token, the whole sequence's
                told = loaded.head[0](head, out[:, :1])
                return jnp.broadcast_to(told, (*ids.shape, told.shape[-1]))
            return out.astype(jnp.float32)

        self._run = DeviceFunction("text", hidden, (loaded.params, loaded.head and loaded.head[1]))
        self._rows = buckets(batch_size, 1, self._run.device_count)[-1]
        self._lengths = buckets(longest, length_buckets)
        self.dim = len(loaded.head[1][-1][1]) if loaded.head else config.hidden_size
        self.spec = identity(
            loaded,
            feature=loaded.head[0].feature if loaded.head else self._feature,
            preprocessing={
                "tokenizer_sha256": tokenizer_sha256(self._tokenizer),
                "window_tokens": longest,
                "overlap_tokens": overlap_tokens,
            },
            dtype=dtype,
        )

    @property
    def _options(self) -> dict[str, Any]:
        """Keywords of the module's call."""
        return {}

    @property
    def _feature(self) -> str:
        """Which features these are, for the record."""
        return "last_hidden_state, sub-words averaged per word"

    def encode(self, segments: Sequence[Segment], clock: Clock) -> WordStream | HeldWordStream:
        """Encodes the words of a transcript, every segment by itself."""
        words = [timed_words(segment) for segment in segments]
        tokens = [self._tokens(texts) for texts, _ in words]
        hidden = self._hidden([ids for ids, _ in tokens], clock)
        encoded = [
            # Words that the tokenizer drops whole do not count.
            SegmentWords(
                s.start_s,
                s.end_s,
                spans if len(owner) else np.zeros((0, 2)),
                _average(h, owner, len(texts) if len(owner) else 0),
            )
            for s, (texts, spans), (_, owner), h in zip(segments, words, tokens, hidden)
        ]
        return self.stream_type(encoded, self.dim, self._unknown(words, tokens))

    def _unknown(
        self,
        words: Sequence[tuple[list[str], np.ndarray]],
        tokens: Sequence[tuple[list[int], np.ndarray]],
    ) -> list[str]:
        """A note if the tokenizer does not know more than `MOST_UNKNOWN` of the words."""
        name = getattr(self._tokenizer.model, "unk_token", None)
        unknown_id = None if name is None else self._tokenizer.token_to_id(name)
        unknown = [
            texts[word]
            for (texts, _), (ids, owner) in zip(words, tokens)
            for word in np.unique(owner[np.asarray(ids) == unknown_id])
        ]
        total = sum(len(texts) for texts, _ in words)
        if len(unknown) <= MOST_UNKNOWN * total:
            return []
        named = listing([printable(word) for word in unknown], 3)
        return [
            f"{len(unknown):,} of {total:,} words are unknown to the tokenizer ({named}): is it of "
            "their language?"
        ]

    def _special_tokens(self) -> tuple[list[int], list[int]]:
        """The tokens that the tokenizer's post-processor adds before and behind a sequence."""
        encoding = self._tokenizer.encode("a", add_special_tokens=True)
        special = encoding.special_tokens_mask
        first = special.index(0)
        last = len(special) - special[::-1].index(0)
        return encoding.ids[:first], encoding.ids[last:]

    def _tokens(self, words: Sequence[str]) -> tuple[list[int], np.ndarray]:
        """Token ids of the joined words without special tokens, and the word of each (n,)."""
        if not words:
            return [], np.zeros(0, int)
        encoding = self._tokenizer.encode(" ".join(words), add_special_tokens=False)
        # Byte-level tokenizers give a word's leading space to its first token.
        ends = np.cumsum([len(w) + 1 for w in words]) - 1
        last = np.array([max(stop - 1, start) for start, stop in encoding.offsets], int)
        owner = np.minimum(np.searchsorted(ends, last, side="right"), len(words) - 1)
        return list(encoding.ids), owner

    def _hidden(self, sequences: Sequence[list[int]], clock: Clock) -> list[np.ndarray]:
        """Last hidden states (n, dim) of every sequence's tokens, without the special ones."""
        windows = [
            (which, start, stop)
            for which, ids in enumerate(sequences)
            for start, stop in overlapping(len(ids), self._window, self._overlap)
        ]
        states: dict[int, np.ndarray] = {}
        by_length = sorted(range(len(windows)), key=lambda i: windows[i][2] - windows[i][1])
        for batch in _batches(by_length, self._rows):
            hidden = self._run_batch(sequences, [windows[i] for i in batch], clock)
            states.update(zip(batch, hidden))
        joined: list[list[tuple[int, np.ndarray]]] = [[] for _ in sequences]
        for i, (which, start, _) in enumerate(windows):
            joined[which].append((start, states[i]))
        empty = np.zeros((0, self.dim), np.float32)
        return [np.concatenate([empty, *(v for _, v in crossfade(parts))]) for parts in joined]

    def _run_batch(
        self,
        sequences: Sequence[list[int]],
        windows: Sequence[tuple[int, int, int]],
        clock: Clock,
    ) -> list[np.ndarray]:
        before, behind = self._special
        rows = [before + sequences[w][start:stop] + behind for w, start, stop in windows]
        length = bucket_of(max(map(len, rows)), self._lengths)
        ids = np.full((len(rows), length), self._pad, np.int32)
        mask = np.zeros((len(rows), length), bool)
        for i, row in enumerate(rows):
            ids[i, : len(row)] = row
            mask[i, : len(row)] = True
        ids, mask = pad_rows(ids, self._rows), pad_rows(mask, self._rows)
        hidden = np.asarray(self._run(ids, mask, clock=clock))
        skip = len(before)
        return [hidden[i, skip : len(row) - len(behind)] for i, row in enumerate(rows)]


class BertEncoder(TextEncoder):
    """BERT features of the words of a transcript, as RJCMA takes them (kind `bert`).

    The outputs of the last layers are added up and averaged over a word's sub-words; the word's
    vector is held while it is spoken. Frames without a spoken word are masked (zeros in the
    release).
    """

    stream_type = HeldWordStream

    def __init__(
        self,
        *,
        source: str,
        dtype: str,
        batch_size: int,
        length_buckets: int,
        overlap_tokens: int,
        summed_layers: int,
        kind: str = "bert",
        output: str = EMBEDDING,
        seed: int | None = None,
        model: Mapping[str, Any] | None = None,
        tokenizer_words: Sequence[str] | None = None,
    ) -> None:
        """As `TextEncoder`; `summed_layers` are added up, counted from the last (RJCMA: 4)."""
        self._summed_layers = summed_layers
        super().__init__(
            source=source,
            dtype=dtype,
            batch_size=batch_size,
            length_buckets=length_buckets,
            overlap_tokens=overlap_tokens,
            kind=kind,
            output=output,
            seed=seed,
            model=model,
            tokenizer_words=tokenizer_words,
        )

    @property
    def _options(self) -> dict[str, Any]:
        return {"summed_layers": self._summed_layers}

    @property
    def _feature(self) -> str:
        n = self._summed_layers
        return f"sum of the last {n} hidden states, sub-words averaged, held while spoken"


def _batches(items: Sequence[int], size: int) -> Iterator[Sequence[int]]:
    for at in range(0, len(items), size):
        yield items[at : at + size]


def _average(hidden: np.ndarray, owner: np.ndarray, words: int) -> np.ndarray:
    """Mean over the tokens (n, c) of every word: (words, c).

    A word without a token of its own (the tokenizer dropped all its characters) takes the vector
    of the word before it.
    """
    sums = np.zeros((words, hidden.shape[1]), np.float32)
    np.add.at(sums, owner, hidden)
    counts = np.bincount(owner, minlength=words)
    out = sums / np.maximum(counts, 1)[:, None]
    for i in np.flatnonzero(counts[1:] == 0) + 1:
        out[i] = out[i - 1]
    return out
