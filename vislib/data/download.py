"""Downloads that survive a weak network: retried, continued, checked, never half a file."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from vislib.errors import InputError

if TYPE_CHECKING:
    import requests

TRIES = 3
TIMEOUT = (10, 30)  # seconds to connect, and between two packets


class Unreachable(InputError):
    """The host does not answer: no use in asking it for the next file."""


def download(
    session: "requests.Session",
    address: str,
    path: Path,
    check: Callable[[Path], object],
    *,
    show_progress: bool = False,
) -> None:
    """Fetch `address` into `path`, which appears only when `check` has passed.

    What has come so far stays in ``path.part``: the next try, or the next call, asks only for
    the rest.

    Args:
        session: of requests, so that connections are kept open between files.
        address: what to fetch.
        path: where it shall lie; its folder is made.
        check: gets the complete ``path.part`` and raises `InputError` if it is not good; the
            file is then deleted.
        show_progress: draw a bar of the bytes.

    Raises:
        Unreachable: no answer, or a server error, `TRIES` times in a row.
        InputError: the server refuses (404 and the like), or `check` does.
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
        except (requests.RequestException, ValueError) as error:  # the latter: an odd redirect
            reason = type(error).__name__
    else:
        raise Unreachable(
            f"{address} does not answer ({reason}). Are you offline? "
            "What has come so far is kept; the same command continues."
        )
    try:
        check(part)
    except InputError as error:
        part.unlink(missing_ok=True)  # gone if another run had the same wish
        raise InputError(f"{address} came damaged: {error}") from error
    part.replace(path)


def _continue(session: "requests.Session", address: str, part: Path, show_progress: bool) -> None:
    """Append to `part` what is missing, or start it anew if the server cannot do that."""
    import requests
    from tqdm.auto import tqdm

    have = part.stat().st_size if part.exists() else 0
    headers = {"Accept-Encoding": "identity"}  # a range of compressed bytes would not fit on
    if have:
        headers["Range"] = f"bytes={have}-"
    with session.get(address, headers=headers, stream=True, timeout=TIMEOUT) as reply:
        if have and reply.status_code == 416:  # nothing after what is here: it is complete
            return
        reply.raise_for_status()
        if reply.status_code != 206:
            have = 0
        elif not reply.headers.get("Content-Range", f"bytes {have}-").startswith(f"bytes {have}-"):
            part.unlink(missing_ok=True)  # the bytes of another place: the next try starts anew
            raise requests.ConnectionError("the server sent another part of the file")
        length = reply.headers.get("Content-Length", "")
        bar = tqdm(
            desc=part.stem,
            initial=have,
            total=have + int(length) if length.isdecimal() else None,
            unit="B",
            unit_scale=True,
            disable=not show_progress,
        )
        with bar, part.open("ab" if have else "wb") as file:
            for block in reply.iter_content(1 << 16):
                file.write(block)
                bar.update(len(block))
