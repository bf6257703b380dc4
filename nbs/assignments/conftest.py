"""Assignments have no reference outputs; tests/grading runs both their editions."""

collect_ignore_glob = ["*.ipynb"]
