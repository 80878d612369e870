"""The error for files, names and downloads that the package cannot use."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class InputError(ValueError):
    """Unusable data from outside: a bad file, an unknown name, a failed download.

    The message says what is wrong, in which file or value, and what to do about it.
    """


def nearest(name: str, known: Iterable[str]) -> str:
    """Hint for an unknown name, to be used as the end of a message.

    Args:
        name: name that was given.
        known: valid names.

    Returns:
        Up to three similar names as a question, or all known names if none is similar.

    >>> nearest("zebar", ["dog", "zebra"])
    "did you mean 'zebra'?"
    >>> nearest("unicorn", ["dog", "zebra"])
    'choose from dog, zebra'
    """
    names = list(known)
    by_lower_case = {n.lower(): n for n in names}
    close = difflib.get_close_matches(str(name).lower(), by_lower_case, n=3)
    if close:
        return f"did you mean {' or '.join(repr(by_lower_case[c]) for c in close)}?"
    return f"choose from {', '.join(names)}" if names else "there are none"
