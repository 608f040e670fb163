"""Hooks of MkDocs: pages of the repository's root, and the source files that pages link to.

Pages link to each other and to code as they do on a code host. On the site a README's `docs/x.md`
is `x.md`, and a file outside of `docs` becomes a page that shows it.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

_ROOT = Path(__file__).parents[2]
# Pages of the root -> their place on the site.
_PAGES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "CONTRIBUTING.md",
    "SECURITY.md": "SECURITY.md",
    "CHANGELOG.md": "CHANGELOG.md",
}
_LINK = re.compile(r"(\[[^\]]*\])\(([^)\s#]+)(#[^)\s]*)?\)")
_LANGUAGES = {".py": "python", ".sh": "bash", ".sbatch": "bash", ".json": "json"}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the root's pages, and one for every file outside of `docs` that a page links to."""
    texts = {f"docs/{f.src_uri}": f.content_string for f in files.documentation_pages()}
    texts |= {name: (_ROOT / name).read_text() for name in _PAGES}
    for name, place in _PAGES.items():
        files.append(File.generated(config, place, content=_on_site(texts[name], name)))
    shown = {target for name, text in texts.items() for target in _targets(text, name)}
    for target in sorted(shown):
        if _outside(target) and (_ROOT / target).is_file():
            page = _source_page(target)
            files.append(File.generated(config, _place(target), content=page))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Links of a page in `docs` to what lies outside of it."""
    generated = page.file.generated_by is not None
    return markdown if generated else _on_site(markdown, f"docs/{page.file.src_uri}")


def _targets(text: str, name: str) -> list[str]:
    """What a page links to, as paths from the root; nothing of the web."""
    folder = posixpath.dirname(name)
    links = [m[2] for m in _LINK.finditer(text) if "://" not in m[2]]
    return [posixpath.normpath(posixpath.join(folder, link)) for link in links]


def _outside(target: str) -> bool:
    return not target.startswith("docs/") and target not in _PAGES


def _place(target: str) -> str:
    """Where a file of the repository lies on the site."""
    if target in _PAGES:
        return _PAGES[target]
    return f"source/{target}.md" if _outside(target) else target.removeprefix("docs/")


def _on_site(text: str, name: str) -> str:
    """A page with its links as the site has them; a folder outside of `docs` is no link there."""
    here = _place(name)

    def link(match: re.Match[str]) -> str:
        if "://" in match[2]:
            return match[0]
        (target,) = _targets(match[0], name)
        if _outside(target) and (_ROOT / target).is_dir():
            return match[1][1:-1]
        place = posixpath.relpath(_place(target), posixpath.dirname(here) or ".")
        return f"{match[1]}({place}{match[3] or ''})"

    return _LINK.sub(link, text)


def _source_page(target: str) -> str:
    """A page that shows a file. Not searched: the site is about the pages."""
    path = _ROOT / target
    head = f"---\nsearch:\n  exclude: true\n---\n\n# {target}\n\n"
    return f"{head}~~~~~{_LANGUAGES.get(path.suffix, 'text')}\n{path.read_text()}\n~~~~~\n"
