"""A hook of the docs build: the menu is the folders, in the order in which a reader meets them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

#: folder -> title in the menu
SECTIONS = {
    "tutorial": "Tutorial",
    "how-to": "How to",
    "reference": "Reference",
    "explanation": "Explanation",
    "decisions": "Decisions",
}
#: page that is no folder -> (title, the section that it stands before)
PAGES = {"performance.md": ("Performance", "decisions")}


def on_config(config: Any) -> Any:
    """Make the menu, so that a new page needs no second entry."""
    docs = Path(config["docs_dir"])
    menu: list[Any] = [{"Home": "index.md"}]
    for folder, title in SECTIONS.items():
        menu += [{name: page} for page, (name, before) in PAGES.items() if before == folder]
        found = sorted(path.relative_to(docs).as_posix() for path in docs.glob(f"{folder}/**/*.md"))
        if found:
            menu.append({title: found})
    config["nav"] = menu
    return config
