"""A Chromium for what opens pages: the tests of the book and its print edition."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from functools import cache

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


@cache
def chromium() -> str | None:
    """The path of a Chromium: the one on the PATH, Debian's, or None for playwright's own.

    Raises:
        FileNotFoundError: if there is none and none can be installed; it says what was tried.
    """
    if found := _on_path():
        return found
    tried = []
    if hasattr(os, "geteuid") and os.geteuid() == 0 and shutil.which("apt-get"):
        tried.append(_attempt(["apt-get", "update", "-qq"]))
        tried.append(_attempt(["apt-get", "install", "-qq", "-y", "--no-install-recommends", "chromium"]))
        if found := _on_path():
            return found
    tried.append(_attempt([sys.executable, "-m", "playwright", "install", "chromium"]))
    if tried[-1]:
        went_wrong = "\n".join(filter(None, tried))
        raise FileNotFoundError(f"This needs Chromium, and it could not be installed:\n{went_wrong}")
    return None


def _on_path() -> str | None:
    return next((path for name in NAMES if (path := shutil.which(name))), None)


def _attempt(command: list[str]) -> str:
    """Run a command; return what went wrong, and an empty string if nothing did."""
    done = subprocess.run(command, capture_output=True, text=True)
    return f"{' '.join(command)}: {done.stderr[-500:] or done.stdout[-500:]}" if done.returncode else ""
