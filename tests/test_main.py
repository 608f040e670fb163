"""The command line, as a user meets it."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile

import pytest

import maven_jax
from maven_jax.__main__ import COMMANDS, main
from maven_jax.progress import complain
from tests.support.root import ROOT


def test_without_arguments_every_command_is_listed_with_a_line(capsys):
    assert main([]) == 0
    lines = capsys.readouterr().out.splitlines()
    for name, (_, text) in COMMANDS.items():
        assert any(line.split(None, 1) == [name, text] for line in lines)


def test_the_version_and_the_public_names_are_shown(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"maven_jax {maven_jax.__version__}\n"
    assert dir(maven_jax) == sorted(maven_jax.__all__)
    assert f"\nversion: {maven_jax.__version__}\n" in (ROOT / "CITATION.cff").read_text()


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command, capsys):
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])
    assert ended.value.code == 0
    assert f"maven-jax {command}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["trian"], "no command 'trian'; did you mean 'train'?"),
        (["frobnicate"], "no command 'frobnicate'"),
        (["evaluate", "--workdr", "w"], "no option --workdr; did you mean --workdir?"),
        (["train", "--confg=maven"], "no option --confg; did you mean --config?"),
        (["predict", "--smoth", "3,5", "x.mp4"], "no option --smoth; did you mean --smooth?"),
        (["tune-smoothing", "--workdir", "w"], "this command is `maven-jax tune` now"),
        (["train", "--config", "quikstart", "--workdir", "w"], "did you mean 'quickstart'"),
        (["train", "--config", "maven", "--workdir", "w"], "no such folder"),
        (["evaluate", "--workdir", "nowhere"], "no config.json here"),
        (["inspect", "nowhere"], "no such folder"),
        (["train"], "required: --config, --workdir"),
        (
            ["train", "--config", "maven", "--workdir", "w", "--profile", "0"],
            "'0': expected a whole",
        ),
        (
            ["train", "--config", "maven", "--workdir", "w", "--profile=-3"],
            "'-3': expected a whole",
        ),
        (["synth", "--out", "o", "--videos", "many"], "--videos"),
        (["evaluate", "--workdir", "w", "--what"], "--what"),
        (["compare", "nowhere"], "maven-jax evaluate --workdir nowhere"),
        (["prepare", "--root", "nowhere", "--out", "s"], "nowhere"),
    ],
)
def test_mistakes_end_in_one_line_and_exit_code_2(arguments, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert said in error
    if arguments != ["frobnicate"]:
        assert error.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_wheel_finds_its_recipes_outside_a_clone(tmp_path):
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path)]
    subprocess.run([*build, str(ROOT)], check=True, capture_output=True)
    (wheel,) = tmp_path.glob("maven_jax-*.whl")
    site = tmp_path / "site"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    code = (
        "import maven_jax, data_prep; from maven_jax import recipes;"
        "print(maven_jax.__file__); print(recipes.find('quickstart')[0]);"
        "print(recipes.load('quickstart').mesh.data);"
        "print(recipes.load('tiny', 'encoders').visual.source);"
        "from importlib import resources; page = resources.files('maven_jax.video.show') / 'web';"
        "print(*(n for n in ('page.html', 'page.css', 'page.js') if (page / n).is_file()))"
    )
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    output = subprocess.run(
        [sys.executable, "-c", code],
        cwd=elsewhere,
        env=os.environ | {"PYTHONPATH": str(site)},
        check=True,
        capture_output=True,
        text=True,
    ).stdout.splitlines()
    assert output[0] == str(site / "maven_jax" / "__init__.py")
    assert output[1] == str(site / "maven_jax" / "configs" / "quickstart.py")
    assert output[2] == "-1"
    assert output[3] == "random"
    assert output[4] == "page.html page.css page.js"


def test_a_package_that_cannot_be_loaded_ends_in_one_line(monkeypatch, capsys):
    monkeypatch.setitem(COMMANDS, "doctor", ("jax.no_such_part", ""))
    assert main(["doctor"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("maven-jax doctor: No module named 'jax.no_such_part' (a package is")
    assert error.count("\n") == 1
    monkeypatch.setitem(COMMANDS, "doctor", ("maven_jax.no_such_part", ""))
    with pytest.raises(ModuleNotFoundError):  # our own mistakes keep their traceback
        main(["doctor"])


def test_without_a_clone_the_benchmarks_are_said_to_be_missing(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "benchmarks", None)
    monkeypatch.delitem(sys.modules, "benchmarks.command", raising=False)
    assert main(["bench"]) == 2
    line = "the benchmarks are not part of the installed package; run it from a clone\n"
    assert capsys.readouterr().err == f"maven-jax bench: {line}"


def test_a_complaint_that_quotes_a_file_is_cut(capsys):
    complain("train", "x" * 10**6)
    assert len(capsys.readouterr().err) < 5000
