# make help lists the targets. Everything runs inside .venv, which the first target sets up.
PYTHON ?= python3
JOBS ?= 2
export PATH := $(CURDIR)/.venv/bin:$(PATH)
# Once set up for a GPU, .venv stays so, until it is told GPU=0.
CUDA := $(filter-out 0,$(or $(GPU),$(wildcard .venv/.gpu)))
READY := .venv/.ready$(if $(CUDA),-gpu)

.PHONY: help setup doctor repro test check tune tune-workers dashboard ui serve report bench paper real real-galaxies weights lock clean

help:            ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):[^#]*## /  make \1	/' | expand -t 20

setup: $(READY)  ## create .venv with the locked packages; GPU=1: with CUDA's libraries for TensorFlow and JAX

doctor: $(READY) ## look at python, packages, devices, weights, stores and disk, and say what is wrong
	deepsky doctor

repro: $(READY)  ## run the pipeline, JOBS=2 stages side by side; ONLY=my_galaxies: just that dataset or run
	deepsky repro --jobs $(JOBS) $(if $(ONLY),--only $(ONLY))

test: check      ## lint, types, import layers and the whole test suite (JOBS=2 files side by side)
	pytest --numprocesses $(JOBS) --dist loadfile --no-loadscope-reorder

check: $(READY)  ## lint, types and import layers only
	ruff check .
	ruff format --check .
	mypy
	lint-imports

# RUN (or DATASET and NETWORK), TRIALS, STUDY and STORAGE are optional; the defaults stand under tune in params.yaml.
SEARCH = deepsky tune run $(if $(DATASET)$(NETWORK),$(or $(DATASET),$(error give DATASET= as well)) $(or $(NETWORK),$(error give NETWORK= as well))) \
  $(if $(RUN),--run $(RUN)) $(if $(TRIALS),--trials $(TRIALS)) $(if $(STUDY),--study $(STUDY)) $(if $(STORAGE),--storage $(STORAGE))

tune: $(READY)   ## search hyperparameters: make tune RUN=zoo_frozen TRIALS=200, or DATASET= NETWORK=
	$(SEARCH)

tune-workers: $(READY) ## the same search, or one that runs, with N=2 processes
	$(SEARCH) --workers $(or $(N),2)

dashboard: $(READY) ## optuna-dashboard on 127.0.0.1 with every study (PORT=8080)
	deepsky tune dashboard $(if $(STORAGE),--storage $(STORAGE)) --port $(or $(PORT),8080)

ui: $(READY)     ## MLflow UI on 127.0.0.1 with every run to compare (PORT=5000)
	deepsky ui --port $(or $(PORT),5000)

serve: $(READY)  ## answer over HTTP with a registered network, MODEL=my_galaxies where there are several (PORT=5002)
	deepsky serve $(MODEL) --port $(or $(PORT),5002)

report: $(READY) ## bring the report up to date and say where it is
	dvc repro report
	@echo "open reports/index.html"

# Those on real images need to be told where they are: make real, make real-galaxies, benchmarks/tuned_heads.py.
bench: $(READY)  ## every benchmark that needs no data; each prints ratios measured in one run
	for file in $(filter-out benchmarks/real_% benchmarks/tuned_heads.py, $(wildcard benchmarks/*.py)); do python $$file || exit 1; done

weights: $(READY) ## download the pretrained weights that are missing, then rerun what depends on them
	deepsky download-weights; code=$$?; dvc repro plan && dvc repro --force --single-item weights \
	  && deepsky repro --jobs $(JOBS) && exit $$code

paper: $(READY)  ## params.yaml of a study: make paper STUDY=fractions N=400, then make repro
	deepsky paper $(or $(STUDY),$(error give STUDY= star-galaxy-quasar, networks, fractions, transfer or galaxy10)) $(if $(N),--n $(N))

real: $(READY)   ## the same stages on real images: make real DATA=folder WEIGHTS=folder
	python benchmarks/real_data.py --data $(DATA) --weights $(WEIGHTS)

real-galaxies: $(READY) ## fine-tuned networks on real galaxies in five folds, and the warm-ups; DATA and WEIGHTS likewise
	python benchmarks/real_morphology.py --data $(DATA) --weights $(WEIGHTS)

LOCK = uv pip compile --universal --python-version 3.11 --extra dev pyproject.toml --no-header --no-annotate --no-emit-index-url

lock: $(READY)   ## resolve the dependencies of pyproject.toml again into the two locks
	python -m pip install --quiet uv
	$(LOCK) --upgrade --output-file requirements.lock
	$(LOCK) --upgrade --extra gpu --constraint requirements.lock --output-file requirements-gpu.lock

clean:           ## remove .venv and the caches of the tools; data, models and runs stay
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache .jax_cache

$(READY): requirements.lock requirements-gpu.lock pyproject.toml install.py
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if (3, 11) <= v < (3, 14) else f"error: python {v[0]}.{v[1]}: deepsky needs 3.11 to 3.13; run make PYTHON=python3.12 $(MAKECMDGOALS)")'
	$(PYTHON) -m venv .venv
	.venv/bin/python install.py $(if $(CUDA),gpu)
	@rm -f .venv/.ready .venv/.ready-gpu .venv/.gpu
	@touch $(READY) $(if $(CUDA),.venv/.gpu)
