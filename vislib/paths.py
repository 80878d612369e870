"""Where the files that ship with the course lie, and those of the user."""

import os
from pathlib import Path

from vislib.errors import InputError

DATA = Path(__file__).resolve().parent.parent / "data"


def at_home(path: str | Path) -> Path:
    """The path, with ``~`` for the home folder; `InputError` where nobody has such a home."""
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise InputError(f"there is no home folder for {path}; write the path in full") from error


def write_whole(path: Path, content: bytes) -> None:
    """Write a file so that a stop at any moment leaves the old one, or none, or the new one."""
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.part")
    unfinished.write_bytes(content)
    unfinished.replace(path)
