"""Grades a folder or zip of notebooks: ``python -m tools.grade 2 submissions.zip --out graded``.

Answers are names. A student's notebook runs in a sandbox as it is (``sandbox``, ``session``, ``inside``);
whatever then stands under an asked name is called with inputs the student has not seen, and what it
returns is judged out here (``rubric``), where no student's code runs. Replies are kept (``records``), so
that an interrupted run goes on and a changed rubric needs no second run. What people type into the tables
(``by_hand``, ``tables``) stays there, and counts for the answer that they read (``written``, ``released``).
"""
