r"""Runs the commands of a page as written, and compares or renews the output that it shows.

    python -m tests.support.pages docs/one_video.md --folder FOLDER [--write]

A command is an indented line that begins with `$ ` (a `\` at its end continues it). Its output
stands below it, where a line `…` stands for any number of lines. A fenced block with a name, as in
"```python name.py", is a file; it is written before the commands after it run. Words are compared,
numbers are not: they differ between machines and runs. `--write` puts the real output into the
page.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.support.root import ROOT

ANY = "…"
_MASKS = (
    (re.compile(r"\b(?=\w*\d)[0-9a-f]{12,}\b"), "0"),  # digests
    (re.compile(r"[-+]?\d[\d,]*(\.\d+)?(e[-+]\d+)?([:×]\d[\d.]*)*"), "0"),
    (re.compile(r"[━─]+"), "─"),
    (re.compile(r"(0 x 0, )+"), ""),  # a list of counts
    (re.compile(r"(?<=0s) \(0\)"), ""),  # pytest, above a minute: in minutes too
    (re.compile(r" <|(?<=│) *-(?= *│)"), " "),  # the best row of a table; no value
    (re.compile(r"\s+"), " "),
)


@dataclass(frozen=True)
class Step:
    """A file to write (`command` empty), or a command with the lines it prints.

    Attributes:
        first: index of the page's line below the command, or of the file's first line.
        last: index behind the last line of output, or of the file.
        command: what is typed.
        file: name of the file.
    """

    first: int
    last: int
    command: str = ""
    file: str = ""


def steps(lines: Sequence[str]) -> Iterator[Step]:
    """The files and commands of a page, in order."""
    i = 0
    while i < len(lines):
        if lines[i].startswith("```"):
            end = next(j for j in range(i + 1, len(lines)) if lines[j].startswith("```"))
            name = lines[i].partition(" ")[2].strip()
            if name:
                yield Step(i + 1, end, file=name)
            i = end + 1
        elif lines[i].startswith("    $ "):
            words = [lines[i][6:]]
            while words[-1].endswith("\\"):
                i += 1
                words.append(lines[i])
            first = last = i + 1
            while last < len(lines) and lines[last].startswith("    "):
                if lines[last].startswith("    $ "):
                    break
                last += 1
            yield Step(first, last, command="\n".join(words))
            i = last
        else:
            i += 1


def masked(line: str) -> str:
    """A line without its numbers, and without what their widths change."""
    for pattern, replacement in _MASKS:
        line = pattern.sub(replacement, line)
    return line.strip()


def align(shown: Sequence[str], printed: Sequence[str]) -> list[str] | None:
    """Replaces the lines that a page shows by those that were printed, `…` excepted.

    Returns:
        As many lines as `shown`, or None if `printed` differs in more than numbers.
    """
    parts: list[list[str]] = [[]]
    for line in shown:
        if line.strip() == ANY:
            parts.append([])
        else:
            parts[-1].append(masked(line))
    words = [masked(line) for line in printed]
    renewed: list[str] = []
    end = 0
    for index, part in enumerate(parts):
        starts = range(end, len(words) - len(part) + 1)
        if index == 0:
            starts = starts[:1]
        if index == len(parts) - 1:
            starts = [s for s in starts if s + len(part) == len(words)]
        start = next((s for s in starts if words[s : s + len(part)] == part), None)
        if start is None:
            return None
        if index:
            renewed.append(ANY)
        end = start + len(part)
        renewed += printed[start:end]
    return renewed


def run(command: str, folder: Path) -> list[str]:
    """Runs a command in a folder and returns the lines that it prints, without empty ones.

    Raises:
        AssertionError: it fails.
    """
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "MAVEN_JAX": str(ROOT),
    }
    done = subprocess.run(
        ["bash", "-c", command],
        cwd=folder,
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    assert done.returncode == 0, f"{command}: exit code {done.returncode}\n{done.stdout}"
    return [line.rstrip() for line in done.stdout.splitlines() if line.strip()]


def walk(page: Path, folder: Path, *, write: bool) -> list[str]:
    """Writes the files and runs the commands of a page, in a folder.

    Args:
        page: the Markdown file.
        folder: where the reader types.
        write: put the printed lines into the page.

    Returns:
        A message for each command that printed something else than the page shows.
    """
    lines = page.read_text().splitlines()
    renewed, done, faults = [], 0, []
    for step in steps(lines):
        if step.file:
            text = "\n".join(lines[step.first : step.last]) + "\n"
            (folder / step.file).write_text(text)
            continue
        printed = run(step.command, folder)
        shown = align([line[4:] for line in lines[step.first : step.last]], printed)
        if shown is None:
            text = "\n".join(printed)
            faults.append(f"{page.name}, line {step.first}: $ {step.command}\nprints\n{text}")
            shown = printed
        renewed += lines[done : step.first]
        renewed += [f"    {line}" for line in shown]
        done = step.last
    if write:
        page.write_text("\n".join([*renewed, *lines[done:]]) + "\n")
    return faults


def main() -> int:
    p = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    p.add_argument("pages", nargs="+", type=Path)
    p.add_argument("--folder", type=Path, required=True, help="where the commands are run")
    p.add_argument("--write", action="store_true", help="put the printed lines into the pages")
    args = p.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    faults = [f for page in args.pages for f in walk(page, args.folder, write=args.write)]
    print("\n\n".join(faults) or "as the pages say")
    return bool(faults) and not args.write


if __name__ == "__main__":
    sys.exit(main())
