"""Files from the internet: fetched once, resumed where they broke off, and checked at every use."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

from flowlib.data.splits import load_module

try:
    import fcntl
except ModuleNotFoundError:  # Windows has no such lock
    fcntl = None  # type: ignore[assignment]

ATTEMPTS = 5
SECONDS = 30  # without a byte until a connection counts as dead


def fetch(url: str, sha256: str, root: str | Path | None = None) -> Path:
    """Return the path of a file that has exactly these contents, fetched from ``url`` if it is not there.

    A file that is there is read and compared at every call, so later damage is found and the file
    fetched anew. A download goes to ``NAME.part`` and is resumed from there, in the same call or a later
    one; only when its checksum is right does it get its name. Processes that share the folder wait
    for one another.

    Args:
        url: where the file is; its last part is the file's name.
        sha256: the published checksum, 64 hexadecimal digits.
        root: the folder. If not given, it is the environment variable ``FLOWLIB_DATA``, and if that is not
            set either, the user's cache, ``~/.cache/flowlib`` on Linux.

    Raises:
        ConnectionError: if the file cannot be fetched.
        ValueError: if what was fetched has another checksum; it is not kept.
        OSError: if the folder cannot be written.
        ModuleNotFoundError: if pooch is not installed.
    """
    pooch = load_module("pooch", "pooch", "Downloads take")
    folder = Path(root or os.environ.get("FLOWLIB_DATA") or pooch.os_cache("flowlib")).expanduser()
    path = folder / url.rpartition("/")[2]
    try:
        if path.is_file() and pooch.file_hash(str(path)) == sha256:
            return path  # without a lock, so that a folder may be read-only
        folder.mkdir(parents=True, exist_ok=True)
        with _alone(folder):
            _retrieve(pooch, url, sha256, path)
    except ConnectionError:
        raise
    except OSError as error:
        raise OSError(
            f"{path} cannot be read or written ({error.strerror or error}); name another folder by root=… or "
            "by the environment variable FLOWLIB_DATA."
        ) from error
    return path


def _retrieve(pooch: Any, url: str, sha256: str, path: Path) -> None:
    """Let pooch fetch, compare and rename; a resumed file that came out wrong is fetched anew as a whole."""
    download = _Download(path.with_name(path.name + ".part"))
    for last in (not download.part.exists(), True):
        try:
            pooch.retrieve(url, f"sha256:{sha256}", path.name, path.parent, downloader=download)
            return
        except ValueError as error:
            if last:
                raise ValueError(
                    f"{url} gave a file that is not the published one: its SHA-256 is not {sha256}. Perhaps "
                    "a proxy or a log-in page answered in its place; try again, or put the right file at "
                    f"{path} by hand."
                ) from error


class _Download:
    """A downloader for pooch that goes on where an earlier one stopped."""

    def __init__(self, part: Path) -> None:
        self.part = part

    def __call__(self, url: str, output_file: str, pooch: Any) -> None:
        import requests
        import urllib3

        for attempt in range(ATTEMPTS):
            try:
                self._receive(url)
                break
            except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
                answered = isinstance(error, requests.HTTPError)
                if answered or isinstance(error, requests.ConnectionError) or attempt == ATTEMPTS - 1:
                    raise ConnectionError(self._sentence(url, error)) from error
        os.replace(self.part, output_file)

    def _receive(self, url: str) -> None:
        """Append what is missing to the part; anything but a clean end raises."""
        import requests

        have = self.part.stat().st_size if self.part.exists() else 0
        # checksums are of the file as it is stored, so nothing may unpack it on the way
        headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
        with requests.get(url, headers=headers, stream=True, timeout=SECONDS) as reply:
            if have and reply.status_code == 416:  # nothing is left to send: whole, or not of this file
                return
            reply.raise_for_status()
            if reply.status_code != 206:  # a server that does not resume sends all of it
                have = 0
            rest = reply.headers.get("Content-Length")
            with self.part.open("ab" if have else "wb") as file, _bar(self.part.stem, have, rest) as bar:
                for chunk in reply.raw.stream(1 << 16, decode_content=False):
                    file.write(chunk)
                    if bar is not None:
                        bar.update(len(chunk))

    def _sentence(self, url: str, error: Exception) -> str:
        import requests

        path = self.part.with_suffix("")
        reply = getattr(error, "response", None)
        if reply is not None:
            why = f"the server answered {reply.status_code} {reply.reason}"
        elif isinstance(error, requests.ConnectionError):
            why = f"the server cannot be reached ({type(error).__name__})"
        else:
            why = "the connection broke"
        damaged = f"{path} is damaged, and " if path.exists() else ""
        kept = " What arrived is kept, and the next call goes on from there." if self.part.exists() else ""
        advice = f"Try again later, or put the file at {path} by hand."
        return f"{damaged}{url} could not be fetched: {why}.{kept} {advice}"


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Keep other processes out of the folder: two that append to one part would spoil it."""
    with (folder / ".lock").open("w") as file:
        if fcntl is not None:
            with suppress(OSError):  # some network drives have no locks
                fcntl.flock(file, fcntl.LOCK_EX)
        yield  # closing the file lets the next one in


def _bar(name: str, have: int, rest: str | None) -> Any:
    try:
        from tqdm import tqdm
    except ModuleNotFoundError:
        return nullcontext()
    total = have + int(rest) if rest else None
    return tqdm(desc=name, initial=have, total=total, unit="B", unit_scale=True)


__all__ = ["fetch"]
