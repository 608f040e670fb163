"""The layout of Aff-Wild2 on disk: which files belong to which video.

    ROOT/annotations/VA_Estimation_Challenge/{Train_Set,Validation_Set}/<video>.txt
    ROOT/annotations/VA_Estimation_Challenge/*test*.{txt,csv}    template or list of test videos
    ROOT/cropped_aligned/<video>/00001.jpg                       face crops
    ROOT/videos/**/<stem>.{mp4,avi,…}
    ROOT/audio/<stem>.wav (.flac, .mp3, …)                       optional
    ROOT/transcripts/<stem>.{json,vtt,srt,tsv,txt}               optional

Parts may also lie as Aff-Wild2's archives bring them (`places`).

`<stem>` is the video's name, or that name without `_left` or `_right`: two people in one
recording are two videos that share its picture, sound and words.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

from data_prep.corpus.places import (
    ANNOTATIONS,
    LAYOUT,
    SPLIT_FOLDERS,
    Places,
    find_places,
    name_absent,
)
from maven_jax.errors import UserError
from maven_jax.media.container import MEDIA_SUFFIXES, SOUND_SUFFIXES, has_audio
from maven_jax.media.problems import (
    NOTE,
    UNUSABLE,
    InputError,
    Problem,
    check_file,
    printable,
    relative,
)
from maven_jax.media.transcripts import TRANSCRIPT_SUFFIXES

__all__ = ["ANNOTATIONS", "SPLITS", "SPLIT_FOLDERS", "Corpus", "Problem", "Video", "scan"]

SPLITS = ("train", "validation", "test")
TEMPLATE_HEADER = "image_location"
MAX_LIST_LINE = 4096
_LIST_SUFFIXES = (".txt", ".csv")


@dataclass(frozen=True)
class Video:
    """One face track: what Aff-Wild2 annotates as one "video".

    Attributes:
        name: of annotation and crops folder, e.g. "12-24-1920x1080_left".
        stem: of the media file without suffix, e.g. "12-24-1920x1080".
        split: "train", "validation" or "test".
        annotation: None in test.
        crops: the folder of face crops.
        media: the video file.
        audio: the WAV, else the media file if it has sound, else None.
        transcript: the one of this name, else the one of the stem, else None.
        extra: extra target, and the file of its annotation.
        listed_frames: the highest frame that the test template asks for, 0 without template.
    """

    name: str
    stem: str
    split: str
    annotation: Path | None = None
    crops: Path | None = None
    media: Path | None = None
    audio: Path | None = None
    transcript: Path | None = None
    listed_frames: int = 0
    extra: tuple[tuple[str, Path], ...] = ()


@dataclass(frozen=True)
class Corpus:
    """A corpus by its layout.

    Attributes:
        root: its folder.
        videos: by split (train, validation, test), then by name.
        problems: of the layout alone; `check` adds those of the contents.
        orphans: "crops", "media", "audio", "transcripts" -> those that belong to no video.
    """

    root: Path
    videos: tuple[Video, ...]
    problems: tuple[Problem, ...] = ()
    orphans: Mapping[str, tuple[Path, ...]] = field(default_factory=dict)


def name_fault(name: str) -> str:
    """Why `name` cannot be a video's name, "" if it can."""
    if not name or name in (".", "..") or len(name) > 200:
        return "not a name"
    if "/" in name or "\\" in name or ".." in name:
        return "a name may not lead to another folder (`/`, `\\` or `..`)"
    if not name.isprintable():
        return "a name may not hold control characters"
    return ""


@dataclass
class _Scan:
    """A scan under way, with the problems so far."""

    root: Path
    places: Places
    real_root: Path = field(init=False)
    problems: list[Problem] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.real_root = self.root.resolve()

    def note(self, path: Path, message: str, video: str = "", severity: str = NOTE) -> None:
        self.problems.append(Problem(severity, relative(path, self.root), "", message, video))

    def allowed(self, path: Path, is_link: bool, video: str) -> bool:
        """False, and a problem, for a bad name or a link that leaves the root."""
        fault = name_fault(path.name)
        if not fault and is_link:
            try:
                if not path.resolve(strict=True).is_relative_to(self.real_root):
                    fault = "a symbolic link that leaves the corpus is not followed"
            except (OSError, RuntimeError):
                fault = "a symbolic link that leads nowhere"
        if fault:
            self.note(path, fault, printable(video), UNUSABLE)
        return not fault

    def entries(self, folder: Path) -> Iterator[os.DirEntry[str]]:
        """The folder's entries by name, hidden files (`.DS_Store`, `._x`) left out."""
        if not folder.is_dir():
            return
        try:
            with os.scandir(folder) as entries_of_folder:
                entries = sorted(entries_of_folder, key=lambda entry: entry.name)
        except OSError as error:
            self.note(folder, f"cannot be read: {error.strerror}", severity=UNUSABLE)
            return
        for entry in entries:
            hidden = entry.name.startswith(".") and not entry.name.startswith("..")
            video = Path(entry.name).stem
            if not hidden and self.allowed(folder / entry.name, entry.is_symlink(), video):
                yield entry

    def files(self, folder: Path, suffixes: tuple[str, ...]) -> Iterator[Path]:
        """The folder's files with one of `suffixes`; others are noted."""
        for entry in self.entries(folder):
            path = folder / entry.name
            if entry.is_dir() or path.suffix.lower() not in suffixes:
                self.note(path, f"ignored: not a {' '.join(suffixes)} file")
            elif not entry.is_file():
                self.note(path, "ignored: not a regular file")
            else:
                yield path

    def media(self) -> dict[str, list[Path]]:
        """Stem -> all media files of that stem in the folders of videos, at any depth."""
        files: dict[str, list[Path]] = defaultdict(list)
        folders = list(self.places.media)
        while folders:
            folder = folders.pop()
            for entry in self.entries(folder):
                path = folder / entry.name
                if entry.is_dir():
                    if entry.is_symlink():  # could lead back to a folder above it
                        self.note(path, "a link to a folder is not followed")
                    else:
                        folders.append(path)
                elif path.suffix.lower() in MEDIA_SUFFIXES and entry.is_file():
                    files[path.stem].append(path)
                else:
                    self.note(path, "ignored: not a video file")
        return {stem: sorted(paths) for stem, paths in files.items()}


def _list_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Numbered non-blank lines of a list of any length, read one at a time."""
    check_file(path)
    try:
        with open(path, encoding="utf-8-sig", newline="\n") as file:
            number = 0
            while line := file.readline(MAX_LIST_LINE):
                number += 1
                if len(line) >= MAX_LIST_LINE:
                    raise InputError(path, f"line {number}", "line too long")
                if stripped := line.strip():
                    yield number, stripped
    except UnicodeDecodeError as error:
        raise InputError(path, "", f"not UTF-8 text: {error.reason}") from None
    except OSError as error:
        raise InputError(path, "", f"cannot be read: {error.strerror or error}") from None


def _list_entry(line: str, template: bool) -> tuple[str, int]:
    """Name and highest frame (0 if none is named) that a line of a list asks for."""
    first = line.split(",", 1)[0].strip()
    if template:
        name, _, image = first.rpartition("/")
        stem, suffix = os.path.splitext(image)
        if not name or suffix.lower() != ".jpg" or not (stem.isascii() and stem.isdigit()):
            raise ValueError(f"expected <video>/00001.jpg, found {printable(first, 60)!r}")
        return name, int(stem[:9])
    stem, suffix = os.path.splitext(first)
    listed = suffix.lower() in (*MEDIA_SUFFIXES, *_LIST_SUFFIXES)
    return (stem if listed else first), 0


def read_test_list(path: Path, root: Path) -> tuple[dict[str, int], list[Problem]]:
    """Names of test videos from a challenge template or a list of names.

    Returns:
        name -> highest frame that the template asks for (0 for a list), in the file's order, and
        a problem for each refused name and for the first malformed line.

    Raises:
        InputError: the file cannot be read.
    """
    names: dict[str, int] = {}
    refused: set[str] = set()
    problems: list[Problem] = []
    template = malformed = False
    file = relative(path, root)
    for number, line in _list_lines(path):
        if line.lower().startswith(TEMPLATE_HEADER):
            template = True
            continue
        try:
            name, frame = _list_entry(line, template)
        except ValueError as error:
            if not malformed:
                problems.append(Problem(UNUSABLE, file, f"line {number}", str(error)))
            malformed = True
            continue
        if name not in names and name not in refused:
            fault = name_fault(name)
            if fault:
                refused.add(name)
                shown = printable(name)
                message = f"{shown!r}: {fault}"
                problems.append(Problem(UNUSABLE, file, f"line {number}", message, shown))
                continue
        if name not in refused:
            names[name] = max(names.get(name, 0), frame)
    return names, problems


def _stem(name: str, *tables: dict) -> str:
    """The name itself if any table has it, otherwise the name without `_left` or `_right`."""
    for side in ("_left", "_right"):
        if name.endswith(side) and not any(name in table for table in tables):
            return name[: -len(side)]
    return name


def _named_videos(scan: _Scan, test_list: Path | None) -> list[tuple[Video, Path]]:
    """Videos by annotation files and test lists, each with the file that names it."""
    folder = scan.places.annotations
    named: list[tuple[Video, Path]] = []
    for split, usual in SPLIT_FOLDERS.items():
        own = scan.places.splits.get(split)
        if own is None:
            where = (folder or scan.root / ANNOTATIONS) / usual
            scan.note(where, f"no such folder: no {split} videos")
            continue
        for path in scan.files(own, (".txt",)):
            named.append((Video(path.stem, path.stem, split, annotation=path), path))
    lists = [Path(test_list)] if test_list else []
    if not lists and folder is not None:
        files = sorted(p for p in folder.iterdir() if p.suffix.lower() in _LIST_SUFFIXES)
        lists = [p for p in files if "test" in p.name.lower() and p.is_file()]
        lists = [p for p in lists if scan.allowed(p, p.is_symlink(), "")]
    for path in lists:
        names, problems = read_test_list(path, scan.root)
        scan.problems += problems
        test_names = {video.name for video, _ in named if video.split == "test"}
        for name, frames in names.items():
            if name not in test_names:
                named.append((Video(name, name, "test", listed_frames=frames), path))
    return named


def _report_duplicates(scan: _Scan, named: list[tuple[Video, Path]]) -> None:
    sources: dict[str, list[Path]] = defaultdict(list)
    for video, path in named:
        sources[video.name].append(path)
    for name, paths in sources.items():
        for path in paths if len(paths) > 1 else ():
            others = ", ".join(relative(p, scan.root) for p in paths if p != path)
            scan.note(path, f"video {name!r} is also in {others}", name, UNUSABLE)


def _report_orphans(
    scan: _Scan, videos: list[Video], tables: dict[str, dict[str, list[Path]]]
) -> dict[str, tuple[Path, ...]]:
    used = {
        "crops": {v.name for v in videos},
        "media": {v.stem for v in videos} | {v.name for v in videos},
    }
    used["audio"] = used["transcripts"] = used["media"]
    message = {
        "crops": "crops without annotation (and in no list of test videos)",
        "media": "video without annotation (and in no list of test videos)",
        "audio": "audio of no annotated video",
        "transcripts": "transcript of no annotated video",
    }
    orphans = {}
    for kind, table in tables.items():
        if kind in scan.places.extra:
            own = {v.name for v in videos}
            if others := len(table.keys() - own):
                folder = scan.places.extra[kind][0].parent
                scan.note(folder, f"{others:,} videos without valence and arousal: unused")
            continue
        alone = [path for stem, paths in table.items() if stem not in used[kind] for path in paths]
        for path in alone:
            scan.note(path, message[kind])
        orphans[kind] = tuple(alone)
    return orphans


def _find(scan: _Scan) -> dict[str, dict[str, list[Path]]]:
    """crops, media, audio, transcripts -> name -> paths, the preferred one first."""
    places = scan.places
    crops: dict[str, list[Path]] = defaultdict(list)
    for folder in places.crops:
        for entry in scan.entries(folder):
            if entry.is_dir():
                crops[entry.name].append(folder / entry.name)
            else:
                scan.note(folder / entry.name, "ignored: not a folder of crops")
    audio = _by_stem(scan, places.audio, SOUND_SUFFIXES)
    transcripts = _by_stem(scan, places.transcripts, TRANSCRIPT_SUFFIXES)
    media = scan.media()
    tables = {"crops": crops, "media": media, "audio": audio, "transcripts": transcripts}
    return tables | {
        name: _by_stem(scan, folders, (".txt",)) for name, folders in places.extra.items()
    }


def _by_stem(scan: _Scan, folders: list[Path], suffixes: tuple[str, ...]) -> dict[str, list[Path]]:
    """Name -> files of these suffixes, in their order; all but the first are noted."""
    files: dict[str, list[Path]] = defaultdict(list)
    for folder in folders:
        for path in scan.files(folder, suffixes):
            files[path.stem].append(path)
    for paths in files.values():
        paths.sort(key=lambda p: suffixes.index(p.suffix.lower()))
        for path in paths[1:]:
            scan.note(path, f"not used: {paths[0].name} goes before it", path.stem)
    return dict(files)


def _assemble(scan: _Scan, video: Video, tables: dict[str, dict[str, list[Path]]]) -> Video:
    """`video` with its files."""
    media, audio, transcripts = tables["media"], tables["audio"], tables["transcripts"]
    stem = _stem(video.name, media)
    paths, crops = media.get(stem, []), tables["crops"].get(video.name, [])
    for alike in (paths, crops):
        for path in alike if len(alike) > 1 else ():
            others = ", ".join(relative(p, scan.root) for p in alike if p != path)
            message = f"the same name as {others}: no telling which one is the video's"
            scan.note(path, message, video.name, UNUSABLE)
    sound = audio.get(video.name) or audio.get(stem)
    words = transcripts.get(video.name) or transcripts.get(stem)
    return replace(
        video,
        stem=stem,
        crops=crops[0] if crops else None,
        media=paths[0] if paths else None,
        audio=sound[0] if sound else None,
        transcript=words[0] if words else None,
        extra=tuple(
            (name, tables[name][video.name][0])
            for name in scan.places.extra
            if video.name in tables[name]
        ),
    )


def scan(
    root: Path,
    test_list: Path | None = None,
    required: tuple[str, ...] = ("cropped_aligned", "videos"),
) -> Corpus:
    """Finds the videos of a corpus and their files; opens media only to see whether it has sound.

    Args:
        root: the corpus's folder.
        test_list: template (header `image_location,…`) or list of names of the test videos;
            by default every `*test*.{txt,csv}` beside the annotation folders.
        required: parts that must exist besides the annotations.

    Names that contain `/`, a backslash, `..` or control characters, and symbolic links that leave
    `root`, are refused and reported. A name in two splits, or two media files of one stem, make
    their videos unusable.

    Raises:
        UserError: `root` does not have this layout.
    """
    root = Path(root)
    if not root.is_dir():
        raise UserError(f"{root}: no such folder; {LAYOUT}")
    places = find_places(root)
    parts = {
        "cropped_aligned": places.crops,
        "videos": places.media,
    }
    absent = [name for name in required if not parts[name]]
    if places.annotations is None:
        absent = [str(ANNOTATIONS), *absent]
    if absent:
        raise name_absent(root, absent)
    state = _Scan(root, places)
    for folder, message in places.notes:
        state.note(folder, message)
    if not places.transcripts:
        state.note(root / "transcripts", "no such folder: text is masked in all videos")
    named = _named_videos(state, test_list)
    if not named:
        raise UserError(
            f"{places.annotations}: no annotations and no list of test videos; {LAYOUT}"
        )
    _report_duplicates(state, named)
    tables = _find(state)
    videos = [_assemble(state, video, tables) for video, _ in named]
    orphans = _report_orphans(state, videos, tables)
    silent = [i for i, v in enumerate(videos) if v.audio is None and v.media is not None]
    with ThreadPoolExecutor(8) as pool:
        sounds = pool.map(lambda i: has_audio(videos[i].media), silent)  # type: ignore[arg-type]
        for i, sound in zip(silent, sounds):
            if sound:
                videos[i] = replace(videos[i], audio=videos[i].media)
    videos.sort(key=lambda v: (SPLITS.index(v.split), v.name))
    return Corpus(root, tuple(videos), tuple(state.problems), orphans)
