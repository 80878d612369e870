"""Where the files that ship with the course lie, and those of the user."""

from pathlib import Path

from vislib.errors import InputError

DATA = Path(__file__).resolve().parent.parent / "data"


def at_home(path: str | Path) -> Path:
    """The path, with ``~`` for the home folder; `InputError` where nobody has such a home."""
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise InputError(f"there is no home folder for {path}; write the path in full") from error
