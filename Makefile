# What a newcomer needs: Python 3.11 or newer and make. `make chat` talks, `make test` checks.
# A second call is quick: each set-up leaves a stamp, and is done again when what it was made
# from has changed.

.PHONY: chat test lint docs exactness bench record test-ray test-lowest man clean
.DEFAULT_GOAL := chat

BIN := .venv/bin
NEEDS := pyproject.toml llmctl/_version.py

chat: .venv/.chat
	@$(BIN)/llmctl chat

test: lint
	$(BIN)/python -m pytest

lint: .venv/.dev
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy

# The site: the pages of docs/, the commands and the public names; a warning is an error.
docs: .venv/.dev
	$(BIN)/python -m sphinx -W --keep-going -q -b html docs build/site

# On the real engine: 600 replies cut and resumed, each compared with the uninterrupted one.
exactness: .venv/.dev
	$(BIN)/python -m tests.exactness --count 600
	$(BIN)/python -m tests.exactness --chat --count 60
	$(BIN)/python -m pytest -m "exhaustive and engine" tests/exactness

# One table; other clients are measured where LLMCTL_BENCH_PEERS says they are.
bench: .venv/.dev
	$(BIN)/python benchmarks/table.py --million

# The README's pictures, from a chat on the real engine: half a minute, and look at them.
record: .venv/.dev
	$(BIN)/python -m tests.record

# What needs Ray, which `make test` does without: 80 MB, and half a minute for each of its starts.
test-ray: .venv/.dev
	@$(BIN)/python -m pip install --quiet --editable '.[ray]'
	$(BIN)/python -m pytest -m "exhaustive or not exhaustive" tests/e2e/test_batch_ray.py

# The oldest packages that pyproject.toml allows, in an environment of their own.
test-lowest: .venv/.dev
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv venv --quiet --clear --python $(BIN)/python .venv-lowest
	$(BIN)/uv pip install --quiet --python .venv-lowest/bin/python --resolution lowest-direct \
		--editable '.[local,fastapi,otel]' --group dev
	.venv-lowest/bin/python -m pytest

# The manual page, as `llmctl completion man` prints it.
man: .venv/.dev
	@mkdir -p build
	$(BIN)/llmctl completion man > build/llmctl.1

clean:
	rm -rf .venv .venv-lowest dist build .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.venv/.chat: .venv/.made $(NEEDS)
	@echo "Installing llmctl with the embedded engine …"
	@$(BIN)/python -m pip install --quiet --editable '.[local]'
	@touch $@

.venv/.dev: .venv/.made $(NEEDS)
	@echo "Installing llmctl and what its tests need …"
	@$(BIN)/python -m pip install --quiet --editable '.[local,fastapi,otel]' --group dev
	@touch $@

# pip is renewed because older ones make start scripts that are slow, and know no groups.
.venv/.made:
	@for python in $(PYTHON) python3.13 python3.12 python3.11 python3.14 python3 python; do \
		if $$python -c 'import sys, ensurepip, venv; sys.exit(sys.version_info < (3, 11))' \
			>/dev/null 2>&1; then found=$$python; break; fi; \
	done; \
	if [ -z "$$found" ]; then \
		echo "llmctl needs Python 3.11 or newer with its venv module: install it, or name it with 'make PYTHON=/path/to/python3'." >&2; \
		exit 1; \
	fi; \
	$$found -m venv --clear .venv
	@$(BIN)/python -m pip install --quiet --upgrade pip
	@touch $@
