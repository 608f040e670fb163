"""Commands replace what they wrote themselves, for the same purpose, and nothing else."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from maven_jax.errors import UserError
from maven_jax.outputs import OutputFile, Product


def put(product: Product, files: dict[str, str]) -> None:
    product.check(*files)
    fill(product, files)


def fill(product: Product, files: dict[str, str]) -> None:
    with product.writing() as folder:
        for name, text in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text)


def visible(folder: Path) -> dict[str, str]:
    files = (p for p in folder.rglob("*") if p.is_file() and ".maven_jax" not in p.parts)
    return {p.relative_to(folder).as_posix(): p.read_text() for p in files}


def test_a_product_replaces_its_own_files_only(tmp_path):
    mine = Product(tmp_path / "o", "predict", "a/cam.mp4")
    put(mine, {"cam.csv": "1", "sub/cam.png": "1"})
    put(mine, {"cam.csv": "2"})
    assert visible(tmp_path / "o") == {"cam.csv": "2", "sub/cam.png": "1"}
    other = Product(tmp_path / "o", "predict", "b/cam.mp4")
    with pytest.raises(UserError, match=r"cam.csv: .* written by `predict` for a/cam.mp4; take"):
        other.check("cam.csv")
    (tmp_path / "o" / "cam.csv").write_text("ratings of hours")
    with pytest.raises(UserError, match=r"cam.csv: was changed after `predict` wrote it"):
        mine.check("cam.csv")
    with pytest.raises(UserError, match="was changed"):
        put(mine, {"new.csv": "3", "cam.csv": "3"})
    with pytest.raises(UserError, match="was changed"):  # meanwhile, that is
        fill(mine, {"new.csv": "3", "cam.csv": "3"})
    assert visible(tmp_path / "o") == {"cam.csv": "ratings of hours", "sub/cam.png": "1"}
    put(Product(tmp_path / "o", "predict", "b/cam.mp4", force=True), {"cam.csv": "4"})
    assert visible(tmp_path / "o")["cam.csv"] == "4"


def test_a_whole_product_leaves_nothing_of_the_one_before(tmp_path):
    product = Product(tmp_path, "evaluate", "test", whole=True)
    put(product, {"test.json": "1", "test/a.csv": "1", "test/b.csv": "1"})
    (tmp_path / "test" / "mine.csv").write_text("notes")
    (tmp_path / "test" / "b.csv").write_text("edited")
    put(product, {"test.json": "2", "test/c.csv": "2"})
    now = {"test.json": "2", "test/c.csv": "2", "test/mine.csv": "notes", "test/b.csv": "edited"}
    assert visible(tmp_path) == now
    with pytest.raises(FileNotFoundError):
        fill(product, {"test.json": "half", "/proc/none/x": ""})
    assert visible(tmp_path) == now


@pytest.mark.parametrize("kind", ["same", "hard link", "link", "spelling", "inside", "link to it"])
def test_an_input_is_never_replaced_even_by_force(kind, tmp_path):
    source = tmp_path / "clip.mp4"
    source.write_text("recording")
    target, inputs = source, [source]
    if kind == "hard link":
        target = tmp_path / "other.mp4"
        os.link(source, target)
    elif kind == "link":
        inputs = [tmp_path / "link.mp4"]
        inputs[0].symlink_to(source)
    elif kind == "spelling":
        (tmp_path / "x").mkdir()
        target = tmp_path / "x" / ".." / "clip.mp4"
    elif kind == "inside":
        inputs = [tmp_path]
    elif kind == "link to it":
        target = tmp_path / "link.mp4"
        target.symlink_to(source)
    with pytest.raises(UserError, match="which this command reads"):
        OutputFile(target, "overlay", "clip", inputs=inputs, force=True)
    assert source.read_text() == "recording"
    assert not (tmp_path / ".maven_jax").exists()


def test_what_is_no_plain_file_is_not_replaced(tmp_path):
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("nowhere")
    for name, force in (("folder", True), ("pipe", True), ("link", False)):
        with pytest.raises(UserError, match=f"{name}: is a|{name}: is no plain file"):
            OutputFile(tmp_path / name, "submit", "t", force=force)
    with pytest.raises(UserError, match="no plain file"):
        OutputFile(Path("/dev/null"), "submit", "t", force=True)
    (tmp_path / "evil").mkdir()
    (tmp_path / "evil" / ".maven_jax").symlink_to(tmp_path / "folder")
    with (
        pytest.raises(UserError, match="is a link"),
        OutputFile(tmp_path / "evil" / "x", "submit", "t").writing() as path,
    ):
        path.write_text("x")
    assert not list((tmp_path / "folder").iterdir())


def test_no_link_in_a_folder_of_somebody_else_leads_out_of_it(tmp_path):
    """Neither new files, nor a record that claims files of the user's as its own."""
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "a.csv").write_text("mine")
    work = tmp_path / "work"
    product = Product(work, "evaluate", "test", whole=True)
    put(product, {"eval/a.csv": "mine", "eval/b.csv": "1"})
    shutil.rmtree(work / "eval")
    (work / "eval").symlink_to(tmp_path / "home")
    with pytest.raises(UserError, match="a link leads out of"):
        fill(product, {"eval/new.csv": "2"})
    put(product, {"other.csv": "2"})  # the files of before are not removed through the link
    assert visible(tmp_path / "home") == {"a.csv": "mine"}


@pytest.mark.parametrize("place", ["long name", "long folder", "below a file", "/proc/none"])
def test_a_place_that_cannot_be_written_is_refused_before_any_work(place, tmp_path):
    (tmp_path / "file").write_text("")
    path = {
        "long name": tmp_path / ("n" * 300),
        "long folder": tmp_path / ("n" * 300) / "x.csv",
        "below a file": tmp_path / "file" / "x.csv",
        "/proc/none": Path("/proc/none/x.csv"),
    }[place]
    with pytest.raises(UserError, match=r"cannot be written \("):
        OutputFile(path, "submit", "t")
    assert {p.name for p in tmp_path.iterdir()} == {"file"}


def test_a_killed_writer_leaves_old_files_or_new_ones_that_may_be_replaced(tmp_path):
    put(Product(tmp_path, "predict", "a"), {"a.csv": "0" * 10, "b.csv": "0" * 10})
    code = (
        "import os, sys; from pathlib import Path; from maven_jax.outputs import Product\n"
        "real, left = os.replace, [int(sys.argv[2])]\n"
        "def replace(*a):\n"
        "    left[0] -= 1\n"
        "    if left[0] < 0: os.kill(os.getpid(), 9)\n"
        "    real(*a)\n"
        "os.replace = replace\n"
        "with Product(Path(sys.argv[1]), 'predict', 'a').writing() as folder:\n"
        "    for name in ('a.csv', 'b.csv'): (folder / name).write_text('1' * 10)\n"
    )
    for count in range(4):  # the record, both files, the record
        done = subprocess.run([sys.executable, "-c", code, str(tmp_path), str(count)])
        assert done.returncode == -9
        assert visible(tmp_path).keys() == {"a.csv", "b.csv"}
        assert set(visible(tmp_path).values()) <= {"0" * 10, "1" * 10}
        Product(tmp_path, "predict", "a").check("a.csv", "b.csv")
    put(Product(tmp_path, "predict", "a"), {"a.csv": "2", "b.csv": "2"})
    assert visible(tmp_path) == {"a.csv": "2", "b.csv": "2"}
