"""The folder of the data that ships with the course, and functions for paths and files."""

from __future__ import annotations

import os
from pathlib import Path

from vislib.errors import InputError

DATA = Path(__file__).resolve().parent.parent / "data"


def at_home(path: str | Path) -> Path:
    """Path in which the home folder replaces ``~``.

    Raises:
        InputError: the home folder cannot be determined.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise InputError(f"there is no home folder for {path}: write the path in full") from error


def shipped(path: Path) -> bytes:
    """Content of a file that ships with the course.

    Raises:
        InputError: the file cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(
            f"{path} cannot be read ({error.strerror}), so the course's folder data/ is "
            "incomplete: copy it again"
        ) from error


def write_whole(path: Path, content: bytes) -> None:
    """Write a file in one step.

    An interruption leaves the old file, no file or the new one, but never a part of it.

    Args:
        path: file to write; its folder must exist.
        content: all bytes of the file.
    """
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.part")
    unfinished.write_bytes(content)
    unfinished.replace(path)
