"""The store of the quickstart: a synthetic corpus, written and encoded unless it exists."""

from __future__ import annotations

from maven_jax import recipes
from maven_jax.errors import UserError
from maven_jax.files import local_path
from maven_jax.progress import say
from maven_jax.store.reader import Store


def ensure_store(
    *, store: str, root: str, videos: int, seconds: float | int, seed: int, encoders: str
) -> None:
    """Makes a synthetic corpus and its feature store, unless the store is complete.

    Args:
        store: folder of the store.
        root: folder of the corpus.
        videos: number of videos.
        seconds: length of each.
        seed: of everything that is drawn.
        encoders: recipe of the encoders, see `configs/encoders`.
    """
    corpus, out = local_path(root), local_path(store)
    try:
        Store(store)
    except UserError:
        pass
    else:
        return
    from data_prep.prepare import prepare
    from data_prep.synth.command import write_corpus

    say(f"making a synthetic corpus of {videos} videos of {seconds:g} s in {root}")
    write_corpus(corpus, videos=videos, seconds=seconds, seed=seed)
    say(f"encoding it into {store}")
    prepare(corpus, out, recipes.load(encoders, "encoders"))
