"""Resolve all dependencies again and store the exact versions.

    uv run python .ci/pin_versions.py

The script writes ``[tool.uv] constraint-dependencies`` in pyproject.toml (for direct and indirect
dependencies) and the versions in environment.yml. The repository has no lock file, because a lock
file contains download addresses; these constraints fix the same versions.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[1]
BEGIN, END = "constraint-dependencies = [\n", "]\n"
# The version in environment.yml, on which the versions of some packages depend.
CONDA_PYTHON = "3.12"
CONDA_NAMES = {"pytorch-cpu": "torch"}


def resolve() -> list[str]:
    """Every package with its exact version, as ``name==version ; marker`` lines."""
    (ROOT / "uv.lock").unlink(missing_ok=True)
    options = [
        "--all-groups",
        "--all-extras",
        "--no-hashes",
        "--no-annotate",
        "--no-header",
        "--no-emit-project",
    ]
    export = subprocess.run(
        ["uv", "export", *options], cwd=ROOT, check=True, capture_output=True, encoding="utf-8"
    )
    return sorted(line for line in export.stdout.splitlines() if "==" in line)


def conda_versions(pins: list[str]) -> dict[str, str]:
    """Versions for the Python of conda on Linux, by the names of the packages."""
    system = {"python_version": CONDA_PYTHON, "python_full_version": CONDA_PYTHON + ".0"}
    system |= {"sys_platform": "linux", "platform_machine": "x86_64", "os_name": "posix"}
    requirements = [Requirement(pin) for pin in pins]
    chosen = [r for r in requirements if r.marker is None or r.marker.evaluate(system)]
    return {r.name: str(r.specifier).removeprefix("==") for r in chosen}


def with_constraints(pyproject: str, pins: list[str]) -> str:
    """Text of pyproject.toml with new pins."""
    start = pyproject.index(BEGIN) + len(BEGIN)
    stop = pyproject.index(END, start)
    return pyproject[:start] + "".join(f'    "{pin}",\n' for pin in pins) + pyproject[stop:]


def with_versions(environment: str, versions: dict[str, str]) -> str:
    """Text of environment.yml with new versions."""

    def pinned(match: re.Match[str]) -> str:
        indent, name, equals, version = match.groups()
        version = versions.get(CONDA_NAMES.get(name, name), version)
        return f"{indent}- {name}{equals}{version}"

    # Packages that conda does not have are installed by pip, which writes == for the version.
    return re.sub(r"^( +)- ([\w-]+)(==?)([\w.]+)$", pinned, environment, flags=re.MULTILINE)


def main() -> None:
    """Write the versions into both files."""
    pyproject, environment = ROOT / "pyproject.toml", ROOT / "environment.yml"
    text = pyproject.read_text(encoding="utf-8")
    # Otherwise the old constraints would determine the result.
    pyproject.write_text(with_constraints(text, []), encoding="utf-8")
    pins = resolve()
    pyproject.write_text(with_constraints(text, pins), encoding="utf-8")
    text = environment.read_text(encoding="utf-8")
    environment.write_text(with_versions(text, conda_versions(pins)), encoding="utf-8")
    print(f"{len(pins)} versions written")


if __name__ == "__main__":
    main()
