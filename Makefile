PYTHON ?= python

.PHONY: check format types lint test slow
check: lint types test

lint:
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .

format:
	$(PYTHON) -m ruff check --fix .
	$(PYTHON) -m ruff format .

# mypy does not follow the editable install: it checks a tree of links named as the package.
types:
	rm -rf build/ns && mkdir -p build/ns/planish
	ln -s $(CURDIR)/compiler/* build/ns/planish/
	ln -s $(CURDIR)/ir $(CURDIR)/passes $(CURDIR)/autotune $(CURDIR)/targets build/ns/planish/
	$(PYTHON) -m mypy

test:
	$(PYTHON) -m pytest

# Those marked slow: hours for all of them, so name some: make slow TESTS=tests/autotune. Files are
# not kept together, which would leave the longest one to one worker.
slow:
	$(PYTHON) -m pytest -m slow --dist worksteal $(TESTS)
