"""Wrong formulas, and which of them a lecture's checks notice: ``python -m tools.mutants 06``.

Each formula in a lecture's code is made wrong in one place (``change``), and the checks that follow from it
(``program``) are run with it (``judge``). A mutant that no check notices has survived: either the check
proves too little, or the change makes no difference, and then ``equivalents.yml`` says why.
"""
