"""Runs in the sandbox: a student's cells, then one call for each question that comes in.

Lines of JSON come in and go out; arrays are their raw bytes in base64. Nothing here knows a right answer,
and nothing that leaves here is believed: the process belongs to the student's code as well.
"""

from __future__ import annotations

import base64
import binascii
import io
import json
import os
import resource
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

PATIENCE = 4  # a busy machine gives a process a part of its time
FONTS = "/course/fonts"  # matplotlib's list of fonts, which takes seconds to make anew


class OutOfTime(BaseException):
    """Raised in the student's code by the alarm; not an Exception, so that few handlers swallow it."""


class Nowhere:
    """Where prints go: nobody reads what a run for grades prints, however much it is."""

    encoding, errors = "utf-8", "replace"

    def write(self, text: str) -> int:
        return len(text)

    def flush(self) -> None: ...

    def isatty(self) -> bool:
        return False

    def fileno(self) -> int:
        return 2


def pack(value: Any, depth: int = 0) -> dict[str, Any]:
    """Turn a value into plain data; what is no data comes out as the name of its type alone."""
    import numpy as np

    torch = sys.modules.get("torch")
    if value is None or value is ...:
        return {"nothing": True}
    if torch is not None and isinstance(value, torch.Tensor):
        value = value.detach().cpu()
        small = value.dtype in (torch.bfloat16, torch.float16)
        value = (value.float() if small else value).resolve_conj().resolve_neg().numpy()
    if isinstance(value, np.ndarray | np.generic) and value.dtype.kind in "biufc":
        array = np.ascontiguousarray(value)
        data = base64.b64encode(array.tobytes()).decode()
        return {"array": data, "dtype": array.dtype.str, "shape": list(np.shape(value))}
    if type(value) in (bool, int, float):
        return pack(np.asarray(value), depth) | {"plain": True}
    if type(value) is str:
        return {"text": value[:10_000]}
    if type(value) in (list, tuple) and depth < 4 and len(value) <= 10_000:
        return {"list": [pack(entry, depth + 1) for entry in value]}
    return {"other": type(value).__name__}


def unpack(packed: dict[str, Any]) -> Any:
    """Turn plain data into an argument: arrays to tensors, code to what it evaluates to."""
    if "text" in packed:
        return packed["text"]
    if "list" in packed:
        return [unpack(entry) for entry in packed["list"]]
    import numpy as np

    if packed.get("plain"):
        return np.frombuffer(base64.b64decode(packed["array"]), packed["dtype"]).item()
    import torch

    if "code" in packed:
        return eval(packed["code"], {"torch": torch} | {k: unpack(v) for k, v in packed["given"].items()})
    array = np.frombuffer(base64.b64decode(packed["array"]), packed["dtype"]).reshape(packed["shape"])
    return torch.from_numpy(array.copy())


def call(names: dict[str, Any], request: dict[str, Any]) -> dict[str, Any]:
    """Answer one question: the value of a name, or what the function of that name returns."""
    first, *rest = request["ask"].split(".")
    if first not in names:
        return {"missing": request["ask"]}
    try:
        if torch := sys.modules.get("torch"):
            torch.manual_seed(0)
        value = names[first]
        for attribute in rest:
            value = getattr(value, attribute)
        if request["args"] is not None:
            if value is None or value is ...:
                return {"nothing": True}
            value = value(*[unpack(packed) for packed in request["args"]])
        return pack(value)
    except OutOfTime:
        return {"late": True}
    except BaseException as error:
        return {"error": describe(error)}


def describe(error: BaseException) -> str:
    """The error in a line, by the name that students know: some versions raise private kinds of it."""
    name = next(kind.__name__ for kind in type(error).__mro__ if not kind.__name__.startswith("_"))
    try:
        return f"{name}: {error}"[:300]
    except Exception:
        return name


def make_shell() -> Any:
    """An IPython shell without history, colours or windows: cells mean what they mean in a notebook."""
    from IPython.core.interactiveshell import InteractiveShell
    from traitlets.config import Config

    class Shell(InteractiveShell):
        def enable_gui(self, gui: str | None = None) -> None: ...

    settings = Config()
    settings.HistoryManager.enabled = False
    settings.InteractiveShell.colors = "NoColor"
    return Shell.instance(config=settings)


def limit(memory: int, processes: int, seconds: int) -> None:
    """Limit this process and its children; the watchdog outside sees to their sum."""
    file_size, no_core = 256 << 20, 0
    for what, most in (
        (resource.RLIMIT_DATA, memory),
        (resource.RLIMIT_NPROC, processes),
        (resource.RLIMIT_CPU, seconds),
        (resource.RLIMIT_FSIZE, file_size),
        (resource.RLIMIT_CORE, no_core),
    ):
        resource.setrlimit(what, (most, most))


def alarm(seconds: float) -> None:
    """Ring after so many seconds of this process's work, or four times as many on the clock; 0 for never."""
    signal.setitimer(signal.ITIMER_PROF, seconds)
    signal.setitimer(signal.ITIMER_REAL, PATIENCE * seconds)


def run_cell(shell: Any, source: str, seconds: float) -> str:
    """Run one cell; return what went wrong in a line, and an empty string if nothing did."""
    alarm(seconds)
    try:
        error = shell.run_cell(source, store_history=False).error_before_exec or sys.exc_info()[1]
        result = shell.last_execution_result
        error = error or (result.error_in_exec if result else None)
    except BaseException as raised:
        error = raised
    finally:
        alarm(0)
    if isinstance(error, OutOfTime):
        return f"it ran for more than {seconds:g} s and was stopped"
    if plt := sys.modules.get("matplotlib.pyplot"):
        plt.close("all")
    return describe(error) if error else ""


def main() -> None:
    """Take the cells, run them, and answer until nothing more comes in."""
    incoming, outgoing = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")

    def send(message: dict[str, Any]) -> None:
        outgoing.write(json.dumps(message).encode() + b"\n")
        outgoing.flush()

    def out_of_time(*_: Any) -> None:
        raise OutOfTime

    start = json.loads(incoming.readline())
    shell = make_shell()
    nothing = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(nothing, standard)
    sys.stdin = io.StringIO()
    sys.stdout = sys.stderr = Nowhere()  # type: ignore[assignment]
    if Path(FONTS).is_dir():
        shutil.copytree(FONTS, Path.home() / ".cache/matplotlib")
    limit(start["memory"], start["processes"], int(start["seconds"]))
    for ringing in (signal.SIGALRM, signal.SIGPROF):
        signal.signal(ringing, out_of_time)
    for number, source in start["cells"]:
        send({"begins": number})
        send({"cell": number, "trouble": run_cell(shell, source, start["cell_seconds"])})
    send({"ready": True})
    for line in incoming:
        request = json.loads(line)
        alarm(start["ask_seconds"])
        try:
            reply = call(shell.user_ns, request)
        except OutOfTime:
            reply = {"late": True}
        alarm(0)
        try:
            send({"reply": reply})
        except (ValueError, TypeError, binascii.Error):
            send({"reply": {"other": "something that is no data"}})


if __name__ == "__main__":
    main()
