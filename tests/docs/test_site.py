"""The pages as a site: every link leads somewhere, and nothing is asked of other hosts."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.pages import ROOT

SHOWN = ("docs", "configs", "data_prep", "maven_jax", "mkdocs.yml", "LICENSE", "CITATION.cff")


def build(repository: Path, out: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "-d", str(out)]
    env = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    return subprocess.run(command, cwd=repository, env=env, capture_output=True, text=True)


def test_the_site_is_built_with_the_pages_of_the_root_and_the_code_they_link_to(tmp_path):
    done = build(ROOT, tmp_path)
    assert done.returncode == 0, done.stderr
    home = (tmp_path / "index.html").read_text()
    local = [h for h in re.findall(r'(?:href|src)="([^"#]+)', home) if "://" not in h]
    assert {"one_video.html", "SECURITY.html", "images/predict_page.png"} <= set(local)
    assert [h for h in local if not (tmp_path / h).is_file()] == []
    code = (tmp_path / "source/configs/affect/default.py.html").read_text()
    assert "RELIABILITY" in re.sub("<[^>]*>", "", code).upper()
    # Scripts, styles and fonts are the site's own.
    asked = re.findall(r'<(?:script|link|img)[^>]+(?:src|href)="(https?:[^"]+)', home)
    assert asked == []


@pytest.mark.parametrize("link", ["nowhere.md", "training.md#no-such-heading", "../configs/no.py"])
def test_a_broken_link_fails(link, tmp_path):
    for name in SHOWN:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, tmp_path / name)
    for page in ROOT.glob("*.md"):
        shutil.copy(page, tmp_path / page.name)
    page = tmp_path / "docs/maven.md"
    page.write_text(f"{page.read_text()}\n[gone]({link})\n")
    done = build(tmp_path, tmp_path / "site")
    assert done.returncode != 0
    assert "maven.md" in done.stderr
