"""Encoders of the Hugging Face hub: found in its cache on this machine, or downloaded aloud."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from maven_jax.convert.tensor_files import WEIGHT_FILES
from maven_jax.errors import UserError
from maven_jax.progress import say

# Everything beside the weights that a user of an encoder may need; small files.
_SMALL_FILES = (
    "config.json",
    "preprocessor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "spm.model",
)
_HUB_ID = re.compile(r"(?P<repo>[\w.-]+(/[\w.-]+)?)(@(?P<revision>[\w./-]+))?")
_TIMEOUT_S = 20
T = TypeVar("T")


def find_here(source: str, encoder: str, option: str) -> str:
    """The folder on this machine of a source that somebody else's file names; asks nobody.

    Args:
        source: a folder, or a hub id whose snapshot may be in the hub's cache.
        encoder: whose encoder it is and what it encodes, for the message.
        option: by which the user may name another source.

    Raises:
        UserError: it is not on this machine.
    """
    folder = Path(source).expanduser()
    if not folder.exists():
        folder = _cached(source)
    if folder is None:
        agree = f", or {option}={source} to download it" if _HUB_ID.fullmatch(source) else ""
        raise UserError(
            f"{encoder} is that of {source!r}, which is not on this machine; name its folder by "
            f"{option}=FOLDER{agree}"
        )
    return str(folder)


def _cached(source: str) -> Path | None:
    """The snapshot of a hub id in the cache."""
    import huggingface_hub

    match = _HUB_ID.fullmatch(source)
    if match is None:
        return None
    try:
        return Path(
            huggingface_hub.snapshot_download(
                match["repo"], revision=match["revision"], local_files_only=True
            )
        )
    except Exception:  # the client has no error of its own for it in all of its versions
        return None


def download(source: str) -> tuple[Path, str | None]:
    """The snapshot of a hub id ("name", "owner/name", "owner/name@revision") and its commit.

    Says what is asked of whom; where the hub cannot be reached, or HF_HUB_OFFLINE forbids to ask
    it, the cache has to hold it.

    Raises:
        UserError: no hub id, or it is neither on the hub nor in the cache.
    """
    folder = _ask(source, _fetch) or _cached(source)
    if folder is None:
        raise _out_of_reach(source)
    commit, revision = folder.name, source.partition("@")[2] or None
    return folder, commit if re.fullmatch(r"[0-9a-f]{40}", commit) else revision


def check(source: str) -> None:
    """Looks whether a hub id is in the cache, or else known to the hub; downloads nothing.

    Raises:
        UserError: no hub id, or it is neither on the hub nor in the cache.
    """
    if _cached(source) is None and _ask(source, _files) is None:
        raise _out_of_reach(source)


def is_hub_id(source: str) -> bool:
    """Whether a source may be a hub id: "name", "owner/name", "owner/name@revision"."""
    return _HUB_ID.fullmatch(source) is not None


def _ask(source: str, about: Callable[[str, str, str | None], T]) -> T | None:
    """What `about` gets of the hub; None where that cannot be reached, or may not be asked."""
    match = _HUB_ID.fullmatch(source)
    if match is None:
        raise UserError(f"{source}: no such folder, and not a hub id like owner/name")
    from huggingface_hub import constants
    from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError

    if constants.HF_HUB_OFFLINE:
        return None
    say(f"{source}: no such folder, so {constants.ENDPOINT} is asked for the encoder")
    try:
        return about(source, match["repo"], match["revision"])
    except (RepositoryNotFoundError, HFValidationError) as error:
        reason = str(error).strip().split("\n")[0]
        raise UserError(f"{source}: no such folder, and the hub says: {reason}") from None
    except Exception:  # network errors, which have no base class of their own in this client
        return None


def _out_of_reach(source: str) -> UserError:
    repo = source.partition("@")[0]
    return UserError(
        f"{source}: no such folder, not in the hub's cache, and the hub cannot be reached; run "
        f"`hf download {repo} --local-dir DIR` where it can, then give DIR instead"
    )


def _files(source: str, repo: str, revision: str | None) -> dict[str, int]:
    """The files of a repository and their sizes."""
    import huggingface_hub

    info = huggingface_hub.HfApi().model_info(
        repo, revision=revision, timeout=_TIMEOUT_S, files_metadata=True
    )
    return {file.rfilename: file.size or 0 for file in info.siblings or ()}


def _fetch(source: str, repo: str, revision: str | None) -> Path:
    import huggingface_hub

    files = _files(source, repo, revision)
    patterns = list(_patterns(files))
    sizes = huggingface_hub.utils.filter_repo_objects(files, allow_patterns=patterns)
    megabytes = sum(files[name] for name in sizes) / 1e6
    say(f"{source}: {megabytes:,.0f} MB at most are downloaded into the hub's cache")
    return Path(huggingface_hub.snapshot_download(repo, revision=revision, allow_patterns=patterns))


def _patterns(files: dict[str, Any]) -> Iterator[str]:
    """The files of a repository that an encoder needs."""
    yield from _SMALL_FILES
    weights = next((name for name in WEIGHT_FILES if name in files), WEIGHT_FILES[0])
    yield weights
    if weights.endswith(".json"):
        yield weights.removesuffix(weights[weights.index(".") :]) + "-*"
