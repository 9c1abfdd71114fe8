"""Add pages to the documentation site that are not in `docs/`: API pages, and root files.

MkDocs calls these functions (`hooks` in `mkdocs.yml`). API pages come from the two OpenAPI
documents that an installation serves, one page for each tag.
"""

from __future__ import annotations

import os
import posixpath
import re
import runpy
import sys
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
# Files of the root folder, and their paths in the site.
ROOT_PAGES = {
    "ARCHITECTURE.md": "explanation/architecture.md",
    "CHANGELOG.md": "project/changelog.md",
    "CODE_OF_CONDUCT.md": "project/code-of-conduct.md",
    "CONTRIBUTING.md": "project/contributing.md",
    "SECURITY.md": "project/security.md",
}
LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s]+)\)")
_made: dict[str, str] = {}


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Make the pages and add them to the navigation."""
    _made.clear()
    for name, path in ROOT_PAGES.items():
        _made[path] = relink((ROOT / name).read_text(encoding="utf-8"), "", path)
    management, inference = _api_pages()
    _made.update({path: text for path, _, text in (*management, *inference)})
    sections = {title: pages for entry in config.nav or [] for title, pages in entry.items()}
    sections["Reference"][1:1] = [
        {"Management API": [{title: path} for path, title, _ in management]},
        {"Inference API": [{title: path} for path, title, _ in inference]},
    ]
    sections["Explanation"].insert(0, ROOT_PAGES["ARCHITECTURE.md"])
    records = sorted(path.name for path in (ROOT / "docs" / "adr").glob("0*.md"))
    sections["Explanation"].append(
        {"Decisions": ["adr/README.md", *(f"adr/{name}" for name in records)]}
    )
    config.nav = [
        *(config.nav or []),
        {"Project": [path for path in ROOT_PAGES.values() if path.startswith("project/")]},
    ]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages from `on_config`."""
    for path, text in _made.items():
        files.append(File.generated(config, path, content=text))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Point links to files outside `docs/` to their pages in the site, else turn them into text."""
    if page.file.src_uri in _made:
        return markdown
    return relink(
        markdown, posixpath.dirname(posixpath.join("docs", page.file.src_uri)), page.file.src_uri
    )


def relink(markdown: str, folder: str, path: str) -> str:
    """Return `markdown` with its links, relative to the repository's `folder`, fit for `path`."""

    def link(link_match: re.Match[str]) -> str:
        image, label, target = link_match.groups()
        if re.match(r"[a-z]+:|#", target):
            return link_match[0]
        file, _, anchor = target.partition("#")
        page_path = posixpath.normpath(posixpath.join(folder, file))
        if page_path in ROOT_PAGES:
            page_path = ROOT_PAGES[page_path]
        elif page_path == "docs/adr":
            page_path = "adr/README.md"
        elif page_path.startswith("docs/"):
            page_path = page_path.removeprefix("docs/")
        elif page_path == "README.md":
            page_path = "README.md"
        else:
            return label
        relative = os.path.relpath(page_path, posixpath.dirname(path) or ".")
        return f"{image}[{label}]({relative}{'#' + anchor if anchor else ''})"

    return LINK.sub(link, markdown)


def _api_pages() -> tuple[list[tuple[str, str, str]], list[tuple[str, str, str]]]:
    os.environ.setdefault("ASSAY_ENV", "test")
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "assay.settings")
    sys.path[:0] = [str(ROOT), str(ROOT / "platform")]
    import django

    django.setup()
    from assay.api.docs import description
    from assay.api.inference_description import inference_description

    pages: Any = runpy.run_path(str(ROOT / "tools" / "api_pages.py"))["pages"]
    return (
        pages(description(), "reference/api", "Management API"),
        pages(inference_description(), "reference/inference", "Inference API"),
    )
