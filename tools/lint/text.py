"""Rules about text, code and links: a notebook reads the same everywhere, and nothing leads astray."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

import nbformat

from tools.lint.lecture import Lecture
from tools.setup_cell import ROOT

BIBLIOGRAPHY = ROOT / "book" / "references.bib"

CODE_BLOCK = re.compile(r"^ *```.*?^ *```", re.DOTALL | re.MULTILINE)
VERBATIM = re.compile(r"\$\$.*?\$\$|\$[^$\n]+\$|`[^`\n]+`", re.DOTALL)
LINK = re.compile(r"\]\(\s*<?([^)>\s]*)>?[^)]*\)|href=\"([^\"]*)\"")
HTML_ALLOWED = {"details", "summary", "div", "br", "sub", "sup", "kbd"}

# what only one renderer understands: (pattern, name, what to write instead)
ONLY_SOMEWHERE = [
    (r"^ *```\{", "a MyST directive", "plain Markdown"),
    (r"^ *:{3,}", "a MyST block (:::)", "a block quote or <details>"),
    (r"\{[a-z][a-z:-]*\}`", "a MyST role", "plain Markdown"),
    (r"^\([\w-]+\)= *$", "a MyST label", "a heading"),
    (r"\\(?:eq)?ref\{|\\label\{", "a LaTeX cross-reference", "the number in brackets, such as (6.3)"),
    (r"\\begin\{(?:align|equation|gather|multline)\*?\}", "an environment of its own", "aligned inside $$"),
    (r"attachment:", "an attachment", "a figure drawn by a code cell"),
    (r"!\[", "an embedded picture", "a figure drawn by a code cell"),
    (r"(?<![(<\[\"/\w])https?://", "a bare address", "a link with words"),
]

UNSUITED = r"clear_output|update_display|ipywidgets|tqdm\.(?:auto|notebook)|urlretrieve|requests\.get"
# Colab mounts everybody's Drive at one place, which a lab may name
FOLDERS = r"/(?:home|Users|root|tmp|content(?!/drive\b)|mnt|opt|usr|var|work)/"
ABSOLUTE_PATH = re.compile(rf"(?<![\w./:])(?:{FOLDERS}|[A-Z]:\\Users)")
CLOCKS = re.compile(r"\b(?:time|perf_counter|process_time|monotonic|seconds|elapsed)\b")
TIME_OR_MEMORY = re.compile(r"\b\d+(?:\.\d+)? ?(?:µs|ms|s|seconds|minutes|[kKMG]i?B)\b")
SECONDS = re.compile(r"\d ?s(?:econds)?$")


def portable_markdown(lecture: Lecture) -> Iterator[str]:
    """Plain Markdown and LaTeX that Colab, GitHub, JupyterLab and the book show alike."""
    for place, cell in lecture.markdown:
        for pattern, name, instead in ONLY_SOMEWHERE:
            text = VERBATIM.sub("", cell.source) if "http" in pattern else cell.source
            if match := re.search(pattern, text, re.MULTILINE):
                yield f"{place} holds {name} (“{match[0].strip()}”); use {instead}."
        prose = CODE_BLOCK.sub("", cell.source)
        marks = [line for line in prose.splitlines() if "$$" in line]
        if len(marks) % 2 or any(line.strip(" >") != "$$" for line in marks):
            yield f"{place}: the $$ around a formula must stand on lines of their own, in pairs."
        for tag in re.findall(r"</?([a-zA-Z]+)\b[^>]*>", VERBATIM.sub("", prose)):
            if tag.lower() not in HTML_ALLOWED:
                yield f"{place} holds the HTML tag <{tag}>; use plain Markdown."
        if prose.count("<details>") != prose.count("</details>"):
            yield f"{place}: a fold is not closed, or a closing </details> has no opening."
        if re.search(r"</summary>(?!\n\n)|(?<!\n\n)</details>", prose):
            yield f"{place}: a fold needs an empty line after </summary> and before </details>."


def plain_code(lecture: Lecture) -> Iterator[str]:
    """Plain Python, without magics, downloads, widgets or prints of times."""
    for place, cell in lecture.code:
        try:
            tree = ast.parse(cell.source)
        except SyntaxError as error:
            yield f"{place} is not plain Python in line {error.lineno}; “!” and “%” lines are not allowed."
            continue
        if match := re.search(UNSUITED, cell.source):
            yield f"{place} uses {match[0]}, which a page without a kernel or a network cannot show."
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print":
                names = {getattr(n, "id", None) or getattr(n, "attr", "") for n in ast.walk(node)}
                if clocks := sorted(filter(CLOCKS.fullmatch, names)):
                    yield f"{place} prints {', '.join(clocks)}, which differs on every run."
        for output in cell.outputs:
            match = TIME_OR_MEMORY.search(output.get("text", ""))
            # a signal may last 0.1 s; only a cell that looks at a clock prints times
            if match and (CLOCKS.search(cell.source) or not SECONDS.search(match[0])):
                yield f"{place} printed “{match[0]}”; times and memory differ on every machine."


def no_absolute_paths(lecture: Lecture) -> Iterator[str]:
    """Nothing names a folder of the machine the lecture was written on."""
    for index, cell in enumerate(lecture.cells):
        outputs = [
            o.get("text", "") + str(o.get("data", {}).get("text/plain", "")) for o in cell.get("outputs", [])
        ]
        for text in (cell.source, *outputs):
            if (match := ABSOLUTE_PATH.search(text)) or str(ROOT) in text:
                yield f"Cell {index + 1} holds an absolute path (“{match[0] if match else ROOT}…”)."
                break


def links_resolve(lecture: Lecture) -> Iterator[str]:
    """Links to pages and headings have their targets; links to the web are well-formed https."""
    for place, cell in lecture.markdown:
        for groups in LINK.findall(CODE_BLOCK.sub("", cell.source)):
            if problem := _broken(next(filter(None, groups), ""), lecture.path):
                yield f"{place}: {problem}"


def references_known(lecture: Lecture) -> Iterator[str]:
    """Every reference has a link, and its DOI or arXiv number is in the book's bibliography."""
    if not BIBLIOGRAPHY.exists():
        yield "book/references.bib is missing, so no reference can be compared with it."
        return
    known = BIBLIOGRAPHY.read_text(encoding="utf-8").lower()
    for number in re.findall(r"https://(?:doi\.org|arxiv\.org/(?:abs|pdf))/([^)\s>]+)", lecture.text):
        number = re.sub(r"(?:v\d+)?(?:\.pdf)?$", "", unquote(number).lower())
        if not re.search(rf"{re.escape(number)}(?![\d.])", known):
            yield f"The reference {number} is not in book/references.bib."
    for entry in re.split(r"^[-*] ", lecture.text.partition("\n## References")[2], flags=re.MULTILINE)[1:]:
        if "](https://" not in entry:
            yield f"The reference “{entry.strip()[:60]}” has no link to a DOI, arXiv or a page."


def anchors(path: Path) -> set[str]:
    """Return the addresses of a page's headings: lower case, hyphens, no punctuation or formulas."""
    if path.suffix == ".ipynb":
        notebook = nbformat.read(path, as_version=4)
        text = "\n\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    else:
        text = path.read_text(encoding="utf-8")
    labels = set(re.findall(r"^\(([\w-]+)\)= *$", text, re.MULTILINE))
    headings = re.findall(r"^#{1,6} +(.+?) *$", CODE_BLOCK.sub("", text), re.MULTILINE)
    titles = (re.sub(r"\$[^$]*\$|`|\*", "", heading) for heading in headings)
    return labels | {re.sub(r"[^\w\- ]", "", title.strip().lower()).replace(" ", "-") for title in titles}


def _broken(target: str, page: Path) -> str | None:
    """Say what is wrong with a link, or return None. Nothing is fetched."""
    address = urlsplit(target)
    if address.scheme or address.netloc:
        host_is_public = re.fullmatch(r"[\w-]+(\.[\w-]+)+", address.netloc) and "localhost" not in target
        right = address.scheme == "https" and host_is_public
        return None if right else f"the link “{target}” must be a well-formed https address."
    if not target or target.startswith("/"):
        return f"the link “{target}” must be relative to the notebook."
    file = (page.parent / address.path).resolve() if address.path else page
    if not file.is_file():
        return f"the link “{target}” leads to a file that does not exist."
    if address.fragment and address.fragment not in anchors(file):
        return f"the link “{target}” names a heading that {file.name} does not have."
    return None
