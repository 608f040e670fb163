"""What files say reaches the screen as text, and as nothing else."""

from __future__ import annotations

import pytest
from rich.table import Table

from maven_jax import progress
from maven_jax.__main__ import main
from maven_jax.errors import printable

HOSTILE = "a\x1b[2J[red]b[/red]\x07 :smile:\u202ec\r\udce9"
SHOWN = r"a\x1b[2J[red]b[/red]\x07 :smile:\u202ec\r\udce9"


def test_control_characters_and_markup_are_shown_as_they_are_written(capsys):
    progress.say(HOSTILE)
    table = Table("name", title=HOSTILE)
    table.add_row(HOSTILE)
    progress.console.print(table)
    progress.complain("train", f"{HOSTILE}\nsecond line")
    printed = capsys.readouterr()
    assert printed.out.count(SHOWN) == 3
    assert printed.err == f"maven-jax train: {SHOWN}\\nsecond line\n"
    assert not {"\x1b", "\x07", "\r", "\u202e"} & set(printed.out + printed.err)


def test_words_of_all_scripts_stay_as_they_are():
    for text in ("naïve", "你好", "नमस्ते", "می\u200cخواهم", "👩\u200d👧"):
        assert printable(text) == text


@pytest.mark.parametrize(
    "command", ["inspect", "evaluate --workdir", "compare", "submit --template"]
)
def test_a_name_in_an_error_cannot_control_the_terminal(command, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main([*command.split(), "no\x1b[31m\nsuch"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "\x1b" not in error


def test_a_line_that_quotes_a_whole_file_is_cut(capfd):
    progress.say("not a number: " + 10_000_000 * "x")
    printed = capfd.readouterr().out
    assert printed.startswith("not a number: xxx")
    assert len(printed) < 10_000
