# make book    builds the HTML book at _build/html/index.html
# make test    passes all tests, the notebooks' reference outputs included
# make quick   lint, types, doctests and every model's property tests, in about a minute: for the inner loop
# make notebooks [NB=06]   re-executes the notebooks and refreshes their outputs
# make mutants NB=06   makes a lecture's formulas wrong one place at a time and says which no check notices
# make lint    says what there is to repair in code, types and lectures
# make benchmarks  measures speed and quality beside other libraries, what training costs, and the lectures' trainings over
#                  several seeds: about two hours
# make serve   builds the book and serves it at http://localhost:8000
# make pdf     prints the book into _build/normalizing-flows.pdf: about three minutes
# make archive [TAG=v0.1.0]   zips the book for a release, with its checksum
# make repo [URL=https://github.com/ACCOUNT/NAME]   sets the repository's address everywhere; without one, the address
#                  that git's origin names
# make assignments [N=2]   writes the students' editions to _build/assignments and tries both editions
# make clean   removes what was built, the environment included

PYTHON ?= python3
BIN := .venv/bin
READY := .venv/ready
OTHERS := .venv/benchmarks
# one thread each: two busy cores with two threads apiece are many times slower
export OMP_NUM_THREADS := 1
export MKL_NUM_THREADS := 1
export TQDM_DISABLE := 1
export PYDEVD_DISABLE_FILE_VALIDATION := 1

.PHONY: book pdf test quick notebooks mutants lint benchmarks serve archive repo assignments clean
.DEFAULT_GOAL := book

$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11) and 'The course needs Python 3.11 or newer: \
	name one, as in make book PYTHON=python3.12')"
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	touch $@

# from nothing each time: a second build would neither repeat a page's warnings nor remove old pages
book: $(READY)
	rm -rf _build/html _build/.doctrees _build/jupyter_execute
	PYTHONPATH=. $(BIN)/jupyter-book build . -W -n --keep-going

test: book
	$(BIN)/python -m pytest -p tests.notebooks.plugin --nbval --nbval-current-env -n 2 $(ARGS)

# single precision, which doubles the time, is left to make test
quick: lint
	$(BIN)/python -m pytest -q -n 2 -k "not float32" flowlib tests/flowlib/test_models.py $(ARGS)

notebooks: $(READY)
	$(BIN)/python -m tools.notebooks $(NB)

mutants: $(READY)
	$(BIN)/python -m tools.mutants $(NB)

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check flowlib tests tools book benchmarks
	$(BIN)/mypy
	$(BIN)/python -m tools.lint

# the other libraries live beside the course's environment, which they see but do not change
$(OTHERS)/ready: benchmarks/requirements.txt $(READY)
	$(BIN)/python -m venv $(OTHERS)
	$(BIN)/python -c "import sysconfig; print(sysconfig.get_path('purelib'))" \
		> $$($(OTHERS)/bin/python -c "import sysconfig; print(sysconfig.get_path('purelib'))")/course.pth
	$(OTHERS)/bin/python -m pip install --quiet --disable-pip-version-check -r benchmarks/requirements.txt
	touch $@

benchmarks: $(OTHERS)/ready
	$(OTHERS)/bin/python -m benchmarks.quality
	$(OTHERS)/bin/python -m benchmarks.speed
	$(OTHERS)/bin/python -m benchmarks.training
	$(BIN)/python -m benchmarks.ablation
	$(BIN)/python -m benchmarks.lab
	$(BIN)/python -m benchmarks.glow_in_the_book
	for n in 10 11 12 13 14 15 16 17; do $(BIN)/python -m benchmarks.lecture_$$n || exit 1; done

pdf: $(READY)
	$(BIN)/python -m tools.print_edition

serve: book
	$(BIN)/python -m http.server --directory _build/html 8000

archive: book
	$(BIN)/python -m tools.archive $(TAG)

repo: $(READY)
	$(BIN)/python -m tools.repo $(URL)

assignments: $(READY)
	$(BIN)/python -m tools.assignments $(N)

clean:
	rm -rf _build .venv
