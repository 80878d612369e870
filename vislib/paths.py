"""Where the files that ship with the course lie."""

from pathlib import Path

DATA = Path(__file__).resolve().parent.parent / "data"
