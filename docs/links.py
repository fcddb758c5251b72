"""Check the built pages: every internal link leads to a file and an anchor, and nothing is asked of another host.

python -m docs.links docs/_build/html
"""

from __future__ import annotations

import sys
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

LOADED = {"img": ("src",), "script": ("src",), "source": ("src", "srcset"), "iframe": ("src",)}
"""What a browser fetches without being asked; and so does a link element."""


class Page(HTMLParser):
    """The anchors of a page, its links, and what it loads."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.anchors: set[str] = set()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note what a tag names, links to and loads."""
        found = {name: value or "" for name, value in attrs}
        self.anchors |= {found[name] for name in ("id", "name") if found.get(name)}
        if tag == "a" and "href" in found:
            self.links.append(found["href"])
        if tag == "link" and found.get("rel") in ("stylesheet", "icon", "preload", "preconnect", "dns-prefetch"):
            self.loads.append(found.get("href", ""))
        self.loads += [found[name] for name in LOADED.get(tag, ()) if found.get(name)]


def problems(folder: Path) -> list[str]:
    """List the links of all pages in a folder that lead nowhere, and what a page loads from another host."""
    found = []
    for path in sorted(folder.rglob("*.html")):
        page, here = _page(path), path.relative_to(folder)
        found += [f"{here}: loads {url} from elsewhere" for url in page.loads if urlsplit(url).netloc]
        for url in dict.fromkeys([*page.links, *page.loads]):
            parts = urlsplit(url)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            target = target / "index.html" if target.is_dir() else target
            if not target.is_file():
                found.append(f"{here}: no file {url}")
            elif parts.fragment and target.suffix == ".html" and unquote(parts.fragment) not in _page(target).anchors:
                found.append(f"{here}: no anchor {url}")
    return found


@cache
def _page(path: Path) -> Page:
    return Page(path.read_text(encoding="utf-8"))


if __name__ == "__main__":
    lines = problems(Path(sys.argv[1]))
    print("\n".join(lines) or f"every internal link of {sys.argv[1]} holds")
    sys.exit(bool(lines))
