"""Read the files inside a Qt resource file (.rcc)."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import zstandard

_FOLDER, _ZLIB, _ZSTD = 2, 1, 4
_NODE = 22  # bytes of an entry of the tree, from version 2 of the format on


def read(path: Path) -> dict[str, bytes]:
    """All files of a resource file, by their path in it.

    The format has a header (magic number, version, three offsets) and, in an order of its choice, a
    tree of entries of fixed size, the contents, and the names. All numbers are big-endian.
    """
    data = path.read_bytes()
    magic, _version, tree, contents, names = struct.unpack_from(">4s4I", data)
    if magic != b"qres":
        raise ValueError(f"{path} is not a Qt resource file")
    files: dict[str, bytes] = {}

    def name(offset: int) -> str:
        (length,) = struct.unpack_from(">H", data, names + offset)
        start = names + offset + 6  # after the length and a hash
        return data[start : start + 2 * length].decode("utf-16-be")

    def content(offset: int, flags: int) -> bytes:
        (length,) = struct.unpack_from(">I", data, contents + offset)
        raw = data[contents + offset + 4 :][:length]
        if flags & _ZLIB:
            return zlib.decompress(raw[4:])  # after the length of the result
        if flags & _ZSTD:
            return zstandard.ZstdDecompressor().decompress(raw, max_output_size=1 << 28)
        return raw

    def walk(index: int, folder: str) -> None:
        entry = tree + index * _NODE
        name_offset, flags = struct.unpack_from(">IH", data, entry)
        here = f"{folder}/{name(name_offset)}" if index else ""
        if flags & _FOLDER:
            count, first = struct.unpack_from(">II", data, entry + 6)
            for child in range(first, first + count):
                walk(child, here)
        else:
            files[here.lstrip("/")] = content(*struct.unpack_from(">I", data, entry + 10), flags)

    walk(0, "")
    return files
