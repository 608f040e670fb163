"""The Markdown files are right: commands, options, recipes, links, and printed output."""

from __future__ import annotations

import argparse
import re
import shutil
import textwrap
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import maven_jax
from maven_jax import recipes
from maven_jax.__main__ import COMMANDS, main
from maven_jax.errors import UserError
from maven_jax.features import sections
from tests.support.pages import ROOT, align, run, steps, walk

PAGES = [
    *(ROOT / f"{n}.md" for n in ("README", "CONTRIBUTING", "SECURITY")),
    *sorted((ROOT / "docs").glob("*.md")),
]
ALL_PAGES = pytest.mark.parametrize("page", PAGES, ids=lambda p: p.stem)


def code(page: Path) -> Iterator[tuple[int, str]]:
    """(number, text) of every line of code and of every `span`; continued lines are one."""
    fenced, begun, text = False, 0, ""
    for number, line in enumerate(page.read_text().splitlines(), start=1):
        fenced ^= line.lstrip().startswith("```")
        if fenced or line.startswith("    "):
            begun, text = begun or number, text + line.strip()
            if text.endswith("\\"):
                text = text[:-1]
                continue
            yield begun, text
        else:
            yield from ((number, span) for span in re.findall(r"`([^`]+)`", line))
        begun, text = 0, ""


def commands(page: Path) -> Iterator[tuple[int, str, list[str]]]:
    """(line, command, its words) of every `maven-jax NAME …` that a page shows."""
    for number, text in code(page):
        for name, rest in re.findall(r"maven-jax ([a-z][a-z-]*)(?= |$)([^|;&#`]*)", text):
            yield number, name, rest.replace("[", " ").replace("]", " ").split()


class _Built(Exception):
    pass


@cache
def options(command: str) -> frozenset[str]:
    """The options of a command; `--config.` and `--encoders.` if it takes values of a recipe."""
    patch = pytest.MonkeyPatch()
    with patch.context() as p:
        for name in ("parse_args", "parse_known_args", "parse_known_intermixed_args"):

            def stop(self, *_, method=name):
                raise _Built(self, method != "parse_args")

            p.setattr(argparse.ArgumentParser, name, stop)
        with pytest.raises(_Built) as caught:
            main([command])
    parser, takes_more = caught.value.args
    more = ("--config.", "--encoders.", "--affect.") if takes_more else ()
    return frozenset([*parser._option_string_actions, *more])


def takes(command: str, word: str) -> bool:
    option = word.partition("=")[0]
    return option in options(command) or option.startswith(
        tuple(o for o in options(command) if o.endswith("."))
    )


@ALL_PAGES
def test_commands_and_options_exist(page):
    wrong = []
    for number, command, words in commands(page):
        if command not in COMMANDS:
            wrong.append(f"line {number}: no command {command}")
            continue
        wrong += [
            f"line {number}: {command} takes no {word}"
            for word in words
            if word.startswith("--") and not takes(command, word)
        ]
    assert not wrong


@ALL_PAGES
def test_recipes_and_their_values_exist(page):
    wrong = []
    for number, text in code(page):
        for option, name in re.findall(r"--(config|encoders)[ =]([\w./]+(?::[\w,]+)?)", text):
            if name.isupper() or (page.parent / name).exists() or name in written(page):
                continue
            group = "encoders" if option == "encoders" else ""
            try:
                file, _ = recipes.find(name, group)
                if file.stem == "fine_tune":  # it reads the run behind the colon
                    continue
                config = recipes.load(name, group)
                words = re.findall(rf"--{option}\.[\w.]+=\S+", text.replace("]", " "))
                if option == "encoders":
                    sections.override(config, words)
                else:
                    recipes.override(config, words, prefix=option)
            except UserError as error:
                wrong.append(f"line {number}: {error}")
    assert not wrong


def written(page: Path) -> set[str]:
    """The files that a page tells its reader to write."""
    return {step.file for step in steps(page.read_text().splitlines())}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_imports_public_names_alone(page):
    public = {"challenge", "layers", *maven_jax.__all__}
    named = re.findall(r"(?:from |import |`)maven_jax\.(\w+)", page.read_text())
    assert set(named) <= public


def test_the_table_of_recipes_names_all_of_them():
    text = (ROOT / "docs" / "training.md").read_text()
    rows = re.search(r"\| recipe \| what \|\n\|---\|---\|\n((?:\|.*\n)+)", text)
    assert rows is not None
    named = set()
    for cell in re.findall(r"^\| ([^|]+) \|", rows.group(1), re.MULTILINE):
        name = ""
        for span in re.findall(r"`([^`]+)`", cell):
            name = span.partition(":")[0] or name
            named.add(name)
            variant = name + span[span.index(":") :] if ":" in span else name
            if variant.rpartition(":")[2].isupper():
                continue
            recipes.load(variant)
    assert named == set(recipes.names())


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives a page's headings."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    words = [re.sub(r"[^\w\- ]", "", h.strip().lower()) for h in headings]
    return {w.replace(" ", "-") for w in words}


@ALL_PAGES
def test_links_lead_somewhere(page):
    text = re.sub(r"^(    .*|```.*?^```)$", "", page.read_text(), flags=re.M | re.DOTALL)
    wrong = []
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith(("http://", "https://")):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        if not file.exists():
            wrong.append(f"{target}: no such file")
        elif anchor and anchor not in anchors(file):
            wrong.append(f"{target}: no such heading")
    assert not wrong


@ALL_PAGES
def test_files_of_the_repository_exist(page):
    folders = "maven_jax|data_prep|configs|tests|benchmarks|launch|docs"
    wrong = []
    for number, text in code(page):
        for path in re.findall(rf"(?<![\w/.-])((?:{folders})/[\w./-]+\.(?:py|sh|sbatch|md))", text):
            if not (ROOT / path).exists():
                wrong.append(f"line {number}: no {path}")
    assert not wrong


def test_numbers_may_differ_and_words_may_not():
    shown = ["a table", "│ x │  0.12 │", "…", "done in 1:02:03"]
    printed = ["a table", "│ x │ 10.5 │", "1/2", "2/2", "done in 0:04"]
    assert align(shown, printed) == ["a table", "│ x │ 10.5 │", "…", "done in 0:04"]
    assert align(shown, [*printed, "and more"]) is None
    assert align(shown, ["first", *printed]) is None
    assert align(shown, [printed[0], "│ y │ 10.5 │", *printed[2:]]) is None
    assert align(["…", "done in 1 s"], ["done in 1 s", "done in 2 s"]) == ["…", "done in 2 s"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """The folder of a reader of the README whose first command has printed what the page shows."""
    folder = tmp_path_factory.mktemp("reader")
    text = (ROOT / "README.md").read_text()
    command = re.search(r"^    pip install .* && (maven-jax .*)$", text, re.MULTILINE)
    shown = re.search(r"chose nothing:\n\n((?:    .*\n)+)", text)
    assert command is not None
    assert shown is not None
    printed = run(command.group(1), folder)
    lines = [line.strip() for line in shown.group(1).splitlines()]
    assert align(["…", *lines], printed) is not None, "\n".join(printed)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name", ["one_video", "new_fusion"])
def test_what_builds_on_the_quickstart_is_printed_as_shown(name, folder):
    faults = walk(ROOT / "docs" / f"{name}.md", folder, write=False)
    assert not faults, "\n\n".join(faults)


@pytest.mark.slow
def test_the_readmes_python_predicts_a_clip(folder):
    text = (ROOT / "README.md").read_text()
    (block,) = re.findall(r"^    import maven_jax\n(?:    .*\n|\n)+", text, re.MULTILINE)
    clip = next((folder / "runs/synthetic/corpus/videos").rglob("*.mp4"))
    shutil.copy(clip, folder / "clip.mp4")
    (folder / "readme.py").write_text(textwrap.dedent(block))
    printed = run("python readme.py", folder)
    assert re.search(r"valence [+-]0\.\d+ +arousal [+-]0\.\d+", printed[-1])
    assert (folder / "clip.csv").is_file()


@pytest.mark.slow
def test_the_way_to_the_challenges_file_is_printed_as_shown(tmp_path):
    faults = walk(ROOT / "docs" / "aff_wild2.md", tmp_path, write=False)
    assert not faults, "\n\n".join(faults)
