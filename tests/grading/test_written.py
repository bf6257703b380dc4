"""What students write in words reaches whoever reads it: whole, alone, and with its pictures."""

from __future__ import annotations

import base64
import json
import re

import pytest

from tests.grading import course
from tests.grading.batch import notebook
from tests.grading.test_assignments import NUMBERS
from tests.grading.test_platforms import result, tiny_rubric
from tools.grade import notebooks, released, report, written
from tools.grade.rubric import Rubric, load, paths

OWN = """Because of three things.

## Part (a)

It holds, see 2.5 below.

### 2) The other way round

# Conclusion

#### 1. The data

$$
x = x
$$"""
PHOTO = base64.b64encode(b"\x89PNG\r\n\x1a\n" + bytes(40)).decode()


def edition(number: int) -> tuple[Rubric, list[str], list[str]]:
    """A rubric, the Markdown that students get, and the ids of its written questions."""
    rubric = load(number)
    words = list(released.given(paths(number)[0]).words)
    return rubric, words, [question.id for question in rubric.questions if not question.judge]


@pytest.mark.parametrize("number", NUMBERS)
def test_an_answer_is_what_the_student_added_and_all_of_it(number):
    rubric, words, ids = edition(number)
    assert written.answers(words, rubric) == dict.fromkeys(ids, "")
    for id in ids:
        (place,) = (i for i, cell in enumerate(words) if cell.startswith(f"### Answer {id}\n"))
        question = next(i for i, cell in enumerate(words) if re.search(rf"^## {id} ", cell, re.M))
        for changed, cell in {
            place: f"### Answer {id}\n\n{OWN}",  # below the heading
            -1 - place: OWN,  # typed over the whole cell, the heading too
            question: f"{words[question]}\n\n{OWN}",  # in the question's own cell
        }.items():
            cells = list(words)
            cells[changed if changed >= 0 else place] = cell
            assert written.answers(cells, rubric) == dict.fromkeys(ids, "") | {id: OWN}


def test_a_number_is_enough_where_all_given_text_was_typed_over(tmp_path):
    rubric = load(2, course.write(tmp_path / "course"))
    assert written.answers(course.GIVEN, rubric) == {"2.4": ""}
    cells = ["## 2.4\n\nIt is so.", course.GIVEN[2]]
    assert written.answers(cells, rubric) == {"2.4": "## 2.4\n\nIt is so."}


def test_a_pasted_photo_is_seen_and_nothing_else_is_loaded(tmp_path):
    pasted = {"my photo.png": {"image/png": PHOTO}, "a.svg": {"image/svg+xml": "PHN2Zz4="}}
    text = (
        "![scan](attachment:my%20photo.png) ![](attachment:a.svg) ![](https://x.org/a.png) <img src='y.png'>"
    )
    content = json.loads(notebook("x = 1", written=text))
    content["cells"][-1]["attachments"] = pasted
    (tmp_path / "work.ipynb").write_text(json.dumps(content))
    one = result(tiny_rubric(), "Ada", "1", "flat", "Ada")
    cells = notebooks.read(tmp_path / "work.ipynb").words
    data = f"<IMG alt=x src='data:image/jpeg;base64,{PHOTO}' onload='alert(1)'>"
    one.record.written = {"2.2": f"{cells[-1]} {data} ![](data:image/gif;base64,{'A' * 5000})"}
    one.record.file = "work <1>.ipynb"
    page = report.answers(tiny_rubric(), "2.2", [one])
    pictures = re.findall(r"<img[^>]*>", page)
    assert pictures == [f'<img alt="" src="data:image/{kind};base64,{PHOTO}">' for kind in ("png", "jpeg")]
    assert "onload" not in page
    assert "attachment:a.svg" in page
    assert "data:image/gif;base64,… (open the notebook)" in page
    assert "In <code>work &lt;1&gt;.ipynb</code>" in page
