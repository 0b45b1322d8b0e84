# Both targets do all set-up on a machine with only Python >= 3.11 and make.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
DEMO ?= demo
# hypothesis: the same examples every time, or wandering ones (make test EXAMPLES=default)
EXAMPLES ?= steady

.PHONY: demo test quick lint warm bench docs clean

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch==2.13.0
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

demo: $(VENV)/.installed
	$(BIN)/cpikan demo -o $(DEMO) --overwrite

lint: $(VENV)/.installed
	$(BIN)/ruff check src tests benchmarks docs/site
	$(BIN)/ruff format --check src tests benchmarks docs/site
	$(BIN)/mypy

warm: $(VENV)/.installed
	$(BIN)/python tests/warm_kernels.py

# mypy works on one core: kernels are compiled beside it
# files keep their order: one long test alone in its file would come last, and one core idle
# one BLAS thread: its threads spin against those of the tests on a small machine
test: $(VENV)/.installed
	@$(MAKE) --no-print-directory --jobs=2 lint warm
	EXAMPLES=$(EXAMPLES) OPENBLAS_NUM_THREADS=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

# what answers within a minute once kernels are compiled: contracts, arrays, documents; no process of its own is started
QUICK := tests/partition tests/storage/test_formats.py tests/storage/test_maps.py tests/storage/test_headers.py \
	tests/streaming/test_bands.py tests/streaming/test_events.py tests/streaming/test_journal.py tests/streaming/test_row_pool.py \
	tests/surface/test_aperture.py tests/surface/test_parameters.py tests/fields/test_scaled_cpikan.py tests/learning/test_points.py \
	tests/images/test_features.py tests/psi/test_noise.py tests/psi/test_schemes.py tests/psi/test_frame_model.py \
	tests/psi/test_acquisition.py tests/pipeline/test_height_map.py tests/pipeline/test_compare.py tests/test_documents.py \
	tests/test_inline_figures.py tests/test_metrics.py tests/test_units.py

quick: $(VENV)/.installed
	$(BIN)/ruff check -q src tests benchmarks docs/site
	EXAMPLES=$(EXAMPLES) OPENBLAS_NUM_THREADS=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 --dist loadfile $(QUICK)

# the documents as web pages, in site/ (docs/site.md)
docs: $(VENV)/.installed
	$(BIN)/python docs/site/build.py site

bench: $(VENV)/.installed
	$(BIN)/python benchmarks/psi.py

clean:
	rm -rf $(VENV) $(DEMO) site .pytest_cache .mypy_cache .ruff_cache
