"""The notebook runs from top to bottom and prints what it shows."""

from __future__ import annotations

import re

import nbformat
from nbclient import NotebookClient

from tests.support.pages import ROOT


def printed(notebook: nbformat.NotebookNode) -> list[str]:
    """What each cell printed, without its numbers; pictures by their kind."""
    texts = []
    for cell in notebook.cells:
        outputs = cell.get("outputs", [])
        text = "".join(o.get("text") or " ".join(sorted(o.get("data", {}))) for o in outputs)
        texts.append(re.sub(r"[\d.]+( *\(\d.*?\))?", "#", text))
    return texts


def test_the_notebook_runs_and_prints_what_it_shows(tmp_path):
    notebook = nbformat.read(ROOT / "docs/notebook.ipynb", 4)
    shown = printed(notebook)
    where = {"metadata": {"path": str(tmp_path)}}
    ran = NotebookClient(notebook, timeout=300, resources=where).execute()
    assert printed(ran) == shown
    assert any("image/png" in text for text in shown)
    (scores,) = [t for t in shown if t.startswith("ridge")]
    assert scores.count("\n") == 2
