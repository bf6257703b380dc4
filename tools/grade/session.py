"""One student's notebook in the sandbox: run it, ask it, and survive whatever it does.

A cell or a call that ends the process, or must be ended, costs itself alone: the process starts anew, runs
the other cells, and goes on with the next question.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from typing import Any, NoReturn

from tools.grade import processes
from tools.grade.inside import PATIENCE
from tools.grade.sandbox import Sandbox, new_name

LONGEST_LINE = 64 << 20
FORGED = "wrote into the line that answers come through and was stopped"


@dataclass(frozen=True)
class Limits:
    """What one notebook may use."""

    cell_seconds: float = 60.0  # of work; of the clock's time four times as many
    ask_seconds: float = 20.0
    seconds: float = 900.0  # of the clock's time, for everything
    grace: float = 5.0  # beyond the alarm inside, before the process is ended
    memory: int = 4 << 30
    processes: int = 128
    restarts: int = 4


class Ended(Exception):
    """The process is gone, or was ended; the message says why."""


@dataclass
class Session:
    """A notebook's code cells, a way to run them, and what went wrong so far.

    ``troubles`` maps a cell's number to a sentence. ``ask`` returns packed replies (see ``inside.pack``).
    """

    cells: Sequence[str]
    sandbox: Sandbox
    limits: Limits = Limits()
    troubles: dict[int, str] = field(default_factory=dict)
    processor_seconds: float = 0.0
    memory: int = 0  # the largest process's most bytes
    _process: subprocess.Popen[bytes] | None = None
    _name: str = ""
    _buffer: bytes = b""
    _skipped: set[int] = field(default_factory=set)
    _deadly: dict[str, str] = field(default_factory=dict)
    _starts: int = 0
    _until: float = 0.0
    _gone: str = ""

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        """Send one question; a reply of the kind ``ended`` says why there is no other."""
        name = request["ask"]
        if name in self._deadly:
            return {"ended": self._deadly[name]}
        if self._process is None:
            self.run()
        if self._gone:
            return {"ended": self._gone}
        try:
            self._send(request)
            reply = self._receive(PATIENCE * self.limits.ask_seconds + self.limits.grace).get("reply")
        except Ended as ended:
            self.close()
            self._deadly[name] = f"calling it {ended}"
            return {"ended": self._deadly[name]}
        return reply if isinstance(reply, dict) else {"other": "something that is no reply"}

    def run(self) -> None:
        """Run the cells, without those that end the process."""
        while not self._gone:
            try:
                self._start()
                patience = PATIENCE * self.limits.cell_seconds + self.limits.grace
                while "ready" not in (message := self._receive(patience)):
                    self._note(message)
                return
            except Ended as ended:
                self.close()
                cell = self._running
                if cell is None or cell in self._skipped:
                    self._gone = f"the notebook {ended} before its first cell"
                else:
                    self._skipped.add(cell)
                    self.troubles[cell] = f"{ended}; the others were run without it"

    def finish(self) -> None:
        """Ask nothing more: the process ends by itself, or is ended after two seconds."""
        if self._process and self._process.stdin:
            running = processes.below(self._process.pid)
            self.processor_seconds = sum(map(processes.seconds, running))
            self.memory = max((processes.memory(pid, "VmHWM") for pid in running), default=0)
            with suppress(OSError, subprocess.TimeoutExpired):
                self._process.stdin.close()
                self._process.wait(timeout=2)
        self.close()

    def close(self) -> None:
        """End the process and all that it started."""
        if self._process is None:
            return
        self._process.kill()
        self.sandbox.stop(self._name)
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            if pipe:
                pipe.close()
        self._process = None

    def _start(self) -> None:
        self._starts += 1
        self._until = self._until or time.monotonic() + self.limits.seconds
        self._running: int | None = None
        if self._starts > 1 + self.limits.restarts:
            self._gone = f"the notebook had to be started more than {self._starts - 1} times"
            raise Ended("was started too often")
        self._name, self._buffer = new_name(), b""
        self._process = subprocess.Popen(
            self.sandbox.command(self._name),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=self.sandbox.environment(),
            start_new_session=True,
        )
        cells = [[i, source] for i, source in enumerate(self.cells) if i not in self._skipped]
        self._send(asdict(self.limits) | {"cells": cells})

    def _note(self, message: dict[str, Any]) -> None:
        if isinstance(begins := message.get("begins"), int):
            self._running = begins
        elif "cell" not in message:
            self._end(FORGED)
        number, trouble = message.get("cell"), message.get("trouble")
        if isinstance(number, int) and isinstance(trouble, str) and trouble:
            self.troubles[number] = trouble[:400]

    def _send(self, message: dict[str, Any]) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(message).encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise Ended("ended the process") from None

    def _receive(self, seconds: float) -> dict[str, Any]:
        """The next message; ends a process that takes too long, too much memory or too many others."""
        assert self._process is not None
        assert self._process.stdout is not None
        pipe = self._process.stdout.fileno()
        late = time.monotonic() + seconds
        while b"\n" not in self._buffer:
            if select.select([pipe], [], [], 0.25)[0]:
                piece = os.read(pipe, 1 << 20)
                if not piece:
                    raise Ended("ended the process")
                self._buffer += piece
            if len(self._buffer) > LONGEST_LINE:
                self._end("sent more than anyone asked for and was stopped")
            if time.monotonic() > min(late, self._until):
                self._end("did not stop when its time was up and was stopped")
            running = processes.below(self._process.pid)
            if len(running) > self.limits.processes:
                self._end(f"started more than {self.limits.processes} processes and was stopped")
            most = self.limits.memory
            # what the cheap sum counts twice, because forks share it, the exact one does not
            if all(sum(processes.memory(pid, name) for pid in running) > most for name in ("VmRSS", "Pss")):
                self._end(f"took more than {most >> 20} MB of memory and was stopped")
        line, _, self._buffer = self._buffer.partition(b"\n")
        try:
            message = json.loads(line)
        except (ValueError, RecursionError):
            message = None
        if not isinstance(message, dict):
            self._end(FORGED)
        return message

    def _end(self, reason: str) -> NoReturn:
        self.close()
        raise Ended(reason)
