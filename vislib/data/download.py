"""Downloads over an unreliable network, which are retried, resumed and checked."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from vislib.errors import InputError

if TYPE_CHECKING:
    import requests

TRIES = 3

# Seconds to connect, and seconds between two packets.
TIMEOUT = (10, 30)


class Unreachable(InputError):
    """Error for a host that does not answer, so that no further files are requested from it."""


def download(
    session: requests.Session,
    address: str,
    path: Path,
    check: Callable[[Path], object],
    *,
    show_progress: bool = False,
) -> None:
    """Download a file, which gets its name only when it is complete and checked.

    The bytes received so far are kept in ``path.part``. The next try, or the next call, requests
    only the missing bytes.

    Args:
        session: HTTP session, which keeps the connection open between files.
        address: address of the file.
        path: path of the new file, whose folder is created if it is missing.
        check: function that is called with the complete ``path.part``. If the content is wrong it
            raises `InputError`, and the file is deleted.
        show_progress: whether to show a progress bar.

    Raises:
        Unreachable: the host did not answer, or reported a server error, `TRIES` times in a row.
        InputError: the server refused the request (such as 404), or `check` raised an error.
    """
    import requests

    part = path.with_name(path.name + ".part")
    path.parent.mkdir(parents=True, exist_ok=True)
    for pause in range(TRIES):
        time.sleep(pause)
        try:
            _continue(session, address, part, show_progress)
            break
        except requests.HTTPError as error:
            if error.response.status_code < 500:
                raise InputError(f"{address} could not be fetched: {error}") from error
            reason = str(error)
        except (requests.RequestException, ValueError) as error:  # ValueError: an invalid redirect.
            reason = type(error).__name__
    else:
        raise Unreachable(
            f"{address} does not answer ({reason}). Are you offline? "
            "The bytes received so far are kept; the same command continues."
        )
    try:
        check(part)
    except InputError as error:
        # Another process may have removed the file.
        part.unlink(missing_ok=True)
        raise InputError(f"the download of {address} is damaged: {error}") from error
    part.replace(path)


def _continue(session: requests.Session, address: str, part: Path, show_progress: bool) -> None:
    """Append the missing bytes to `part`, or start again if the server does not support that."""
    import requests
    from tqdm.auto import tqdm

    done = part.stat().st_size if part.exists() else 0
    # A range counts the bytes as sent, so they must not be compressed on the way.
    headers = {"Accept-Encoding": "identity"}
    if done:
        headers["Range"] = f"bytes={done}-"
    with session.get(address, headers=headers, stream=True, timeout=TIMEOUT) as reply:
        # Status 416: there are no bytes after these, so the file is complete.
        if done and reply.status_code == 416:
            return
        reply.raise_for_status()
        if reply.status_code != 206:
            done = 0
        elif not reply.headers.get("Content-Range", f"bytes {done}-").startswith(f"bytes {done}-"):
            # The server sent the bytes of another range, so the next try starts from zero.
            part.unlink(missing_ok=True)
            raise requests.ConnectionError("the server sent another part of the file")
        length = reply.headers.get("Content-Length", "")
        bar = tqdm(
            desc=part.stem,
            initial=done,
            total=done + int(length) if length.isdecimal() else None,
            unit="B",
            unit_scale=True,
            disable=not show_progress,
        )
        with bar, part.open("ab" if done else "wb") as file:
            for block in reply.iter_content(1 << 16):
                file.write(block)
                bar.update(len(block))
