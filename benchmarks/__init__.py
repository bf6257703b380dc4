"""Speed and quality of flowlib beside zuko, nflows, normflows and FrEIA: ``make benchmarks``.

``families.py`` says what is compared, one ``with_*.py`` for each library builds it, ``speed.py`` and
``quality.py`` measure, and ``targets.py`` holds the numbers to reach. The results are committed, and
the book makes a page of them.
"""
