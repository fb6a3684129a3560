"""Packaging of STAG-JAX; tool settings live in pyproject.toml."""

from pathlib import Path

from setuptools import find_packages, setup

# `datasets`, `configs` and `experiments` are plain folder names in a clone, but each of them is somebody
# else's project on PyPI, so they are installed under names of our own.
RENAMED = {"stag_datasets": "datasets", "stag_configs": "configs", "stag_experiments": "experiments"}

packages = find_packages(include=["stag_jax", "stag_jax.*"])
for installed, folder in RENAMED.items():
    packages += [installed] + [f"{installed}.{name}" for name in find_packages(folder)]

TEST = [
    "pytest>=8",
    "pytest-xdist>=3.5",
    "hypothesis>=6.100",
    "beartype>=0.20",
    "openpyxl>=3.1",
    "xlwt>=1.3",
    "scikit-learn>=1.4",
    "scikit-image>=0.25",
    "ruff>=0.9",
    "nbclient>=0.10",  # the notebook is executed
    "ipykernel>=6.29",
    "jsonschema>=4.20",
    "playwright>=1.48",  # the pages are opened in Chromium, where there is one
]

# mkdocs build --strict; mkdocs 2 is another program without plugins. ruff lays out the signatures.
DOCS = ["mkdocs>=1.6,<2", "mkdocs-material>=9.6", "mkdocstrings[python]>=1", "ruff>=0.9"]
VIEW = ["flask>=3"]  # experiments/view.py
SLURM = ["submitit>=1.5"]  # sweeps as jobs of a cluster
# experiments/export.py --format=onnx, and to run what it writes. The writer itself, jax2onnx, cannot stand here: it
# asks for an orbax-checkpoint older than ours, and uses none for this: pip install --no-deps jax2onnx
ONNX = ["onnx>=1.20", "onnxruntime>=1.24", "onnx-ir>=0.2.1"]
LITERT = ["tensorflow>=2.21", "ai-edge-litert>=2.1"]  # --format=tflite: the first writes, the second runs
BEAM = ["apache-beam>=2.60"]  # for corpora too large for one machine

setup(
    name="stag-jax",
    version="0.1.0",
    description="Spatio-temporal graphs of facial action units for micro-expression recognition, in JAX",
    long_description=Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11",
    packages=packages,
    package_dir={"stag_jax": "stag_jax", **RENAMED},
    package_data={
        "stag_datasets": ["*/README.md", "*/CITATIONS.bib", "*/TAGS.txt"],
        "stag_jax.analysis.page": ["report.html"],
        "stag_jax.deploy": ["predictions.schema.json", "requirements.txt", "synth_me.stag"],
        "stag_experiments": ["analysis_tour.ipynb"],
        "stag_jax.viewer": ["*.html", "*.css", "*.js"],
    },
    install_requires=[
        "jax>=0.10",
        "flatbuffers>=24",  # exported programs are written with it; jax does not bring it
        "flax>=0.12",
        "optax>=0.2.5",
        "orbax-checkpoint>=0.12",
        "numpy>=2",
        "tensorflow-datasets>=4.9.10",
        "importlib_resources>=6",  # tensorflow-datasets 4.9.10 imports it without asking for it
        "array-record>=0.8",
        "ml-collections>=1.1",
        "absl-py>=2",
        "dlib-bin>=20",  # the `dlib` module as a wheel; its source takes a long time to compile
        "face_recognition_models>=0.3",  # carries the 68-point predictor file
        "opencv-python-headless>=4.10",
        "pillow>=10",
        "python-calamine>=0.4",  # annotation sheets, .xlsx and .xls alike
        "av>=15,<19",  # 19 renames what tells rotation and hidden frames
        "jaxtyping>=0.3",
        "matplotlib>=3.8",
        "pandas>=2.2",
        "jinja2>=3.1",
        "scipy>=1.11",
        "psutil>=5.9",
        "joblib>=1.4",  # counts the cores that affinity and containers leave
        "filelock>=3.30",  # one run a workdir
        "tqdm>=4.66",
    ],
    extras_require={
        "test": [*TEST, *SLURM, *VIEW, *ONNX],
        "docs": DOCS,
        "view": VIEW,
        "slurm": SLURM,
        "beam": BEAM,
        "onnx": ONNX,
        "litert": LITERT,
        # The jax of setup.py with what its devices need; the versions match by themselves.
        "cuda": ["jax[cuda12]>=0.10"],
        "tpu": ["jax[tpu]>=0.10"],
        "dev": [*TEST, *DOCS, *SLURM, *VIEW, *BEAM, *ONNX, "build"],
    },
)
