"""What authors and instructors run: ``python -m tools.NAME``, mostly through the Makefile."""
