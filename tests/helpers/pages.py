"""The README and the pages of docs/: their sections, code blocks, links and tables."""

import re
from dataclasses import dataclass

from helpers import ROOT

PAGES = tuple(
    path.relative_to(ROOT).as_posix()
    for path in (
        ROOT / "README.md",
        ROOT / "CONTRIBUTING.md",
        ROOT / "SECURITY.md",
        *sorted((ROOT / "docs").rglob("*.md")),
    )
)
LANGUAGES = ("python", "sh", "text")

_FENCE = re.compile(
    r"^(?P<fence>```+|~~~+)(?P<language>.*)\n(?P<text>(?:.*\n)*?)(?P=fence)[ ]*$", re.MULTILINE
)


@dataclass(frozen=True)
class Section:
    """A part of a page, from one heading to the next."""

    page: str
    heading: str
    text: str

    def __str__(self):
        return f"{self.page}: {self.heading}"

    @property
    def fences(self):
        """The blocks of code as (language, text)."""
        return [(found["language"], found["text"]) for found in _FENCE.finditer(self.text)]

    def blocks(self, language="python"):
        return [text for each, text in self.fences if each == language]

    @property
    def is_notebook(self):
        """Whether its Python blocks are the cells of one notebook: one of them has a magic."""
        return any(block.startswith("%") for block in self.blocks())


def text_of(page):
    return (ROOT / page).read_text(encoding="utf-8")


def prose_of(page):
    """A page without its blocks of code."""
    return _FENCE.sub("", text_of(page))


def headings_of(page):
    return re.findall(r"^#+ (.*)$", prose_of(page), re.MULTILINE)


def sections():
    """Every section of every page; what stands above the second heading belongs to the first one."""
    found = []
    for page in PAGES:
        text, starts = text_of(page), []
        inside = [(fence.start(), fence.end()) for fence in _FENCE.finditer(text)]
        for heading in re.finditer(r"^#+ (.*)\n", text, re.MULTILINE):
            if not any(start < heading.start() < end for start, end in inside):
                starts.append(heading)
        ends = [following.start() for following in starts[1:]] + [len(text)]
        found += [Section(page, one[1], text[one.end() : end]) for one, end in zip(starts, ends, strict=True)]
    return found


def section(page, heading):
    (found,) = [one for one in sections() if (one.page, one.heading) == (page, heading)]
    return found
