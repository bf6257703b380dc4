"""Set the repository's address everywhere: ``python -m tools.repo [https://github.com/ACCOUNT/NAME]``.

pyproject.toml holds the address; this replaces it, and every address that starts with it, in all
text files of the course, the set-up cells of the notebooks included. Without an address it takes the
one where the files are at home: the workflow's repository, or what git calls origin. The book is built
for that one too, so that a fork's pages are right before anything is set.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from tools.setup_cell import ROOT, repository

TEXT = {".cff", ".css", ".html", ".ipynb", ".js", ".lock", ".md", ".py", ".toml", ".txt", ".yml"}
NOT_OURS = {"_build", "node_modules", "mathjax"}


def files(root: Path) -> Iterator[Path]:
    """Every text file of the course: no hidden folders, nothing built, nothing vendored."""
    for folder, names, here in os.walk(root):
        names[:] = sorted(name for name in names if name not in NOT_OURS and not name.startswith("."))
        for name in sorted(here):
            path = Path(folder, name)
            if path.suffix in TEXT or name in ("LICENSE", "Makefile"):
                yield path


def checked(address: str) -> str:
    """Return the address without a closing slash or .git, or raise ValueError with a sentence."""
    parts = urlsplit(address)
    if parts.scheme != "https" or not re.fullmatch(r"[\w-]+(\.[\w-]+)+", parts.netloc):
        raise ValueError(f"“{address}” is no https address; give https://HOST/ACCOUNT/NAME.")
    path = parts.path.removesuffix("/").removesuffix(".git")
    if not re.fullmatch(r"(/[\w.-]+){2,}", path) or parts.query or parts.fragment:
        raise ValueError(
            f"“{address}” names no repository; give https://HOST/ACCOUNT/NAME and nothing after."
        )
    return f"https://{parts.netloc}{path}"


def home(root: Path = ROOT) -> str:
    """Return where these files are at home: the workflow's repository, git's origin, or what they say."""
    if name := os.environ.get("GITHUB_REPOSITORY"):
        return f"{os.environ.get('GITHUB_SERVER_URL', 'https://github.com')}/{name}"
    if (root / ".git").exists():  # a repository around an unpacked archive is another's
        command = ["git", "-C", str(root), "remote", "get-url", "origin"]
        try:
            return checked(_as_https(subprocess.run(command, capture_output=True, text=True).stdout.strip()))
        except (FileNotFoundError, ValueError):
            pass  # no git, no origin, or one that is no address on the web
    return repository(root)


def pages(address: str) -> str | None:
    """Return where a repository's pages are served, or None where its host has no such rule.

    Example:
        >>> pages("https://github.com/ada/flows")
        'https://ada.github.io/flows/'
        >>> pages("https://github.com/ada/ada.github.io")
        'https://ada.github.io/'
    """
    host, account, *names = address.removeprefix("https://").split("/")
    kind = {"github.com": "github.io", "gitlab.com": "gitlab.io"}.get(host)
    if kind is None or account == "YOUR_ACCOUNT":
        return None
    server = f"{account.lower()}.{kind}"
    return f"https://{'/'.join([server, *(name for name in names if name.lower() != server)])}/"


def occurrences(root: Path = ROOT) -> list[Path]:
    """Return the files that hold the current address."""
    whole = address_pattern(repository(root))
    return [path for path in files(root) if whole.search(path.read_text(encoding="utf-8"))]


def set_repository(address: str, root: Path = ROOT) -> list[Path]:
    """Replace the current address by a new one; return the files that changed."""
    new, whole = checked(address), address_pattern(repository(root))
    changed = []
    for path in occurrences(root):
        text = path.read_text(encoding="utf-8")
        replaced = whole.sub(new, text)
        if replaced != text:
            path.write_text(replaced, encoding="utf-8")
            changed.append(path)
    return changed


def main(arguments: list[str], root: Path = ROOT) -> int:
    """Set the address given on the command line, or the one found; return the exit status."""
    if len(arguments) > 1:
        print("Give one address: make repo URL=https://github.com/ACCOUNT/NAME", file=sys.stderr)
        return 2
    try:
        changed = set_repository(arguments[0] if arguments else home(root), root)
    except ValueError as refused:
        print(refused, file=sys.stderr)
        return 2
    for path in changed:
        print(f"{path.relative_to(root)}: address set")
    print(f"The repository is {repository(root)}.")
    return 0


def _as_https(address: str) -> str:
    """An address as git knows it, in its https form, without names, passwords or ports."""
    short = re.fullmatch(r"(?:[^@/]+@)?([\w.-]+):(?!//)(.+)", address)  # git@HOST:ACCOUNT/NAME
    parts = urlsplit(f"ssh://{short[1]}/{short[2]}" if short else address)
    if parts.scheme not in ("https", "ssh", "git+ssh") or not parts.hostname:
        return address
    return f"https://{parts.hostname}{parts.path}"


def address_pattern(address: str) -> re.Pattern[str]:
    """The address, not as the beginning of a longer name; what follows it in a link stays."""
    return re.compile(re.escape(address) + r"(?![\w-])")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
