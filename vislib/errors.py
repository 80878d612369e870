"""The one error that the package raises for data that it cannot use."""

import difflib
from collections.abc import Iterable


class InputError(ValueError):
    """Data from outside that cannot be used: a bad file, an unknown name, a failed download.

    The message says what was wrong, in which file or value, and what to do about it.
    """


def nearest(name: str, known: Iterable[str]) -> str:
    """Return a hint for a misspelt name: ``did you mean 'zebra'?``, or the known names.

    Args:
        name: what was asked for.
        known: the names that would have been right.
    """
    names = list(known)
    by_lower_case = {n.lower(): n for n in names}
    close = difflib.get_close_matches(str(name).lower(), by_lower_case, n=3)
    if close:
        return f"did you mean {' or '.join(repr(by_lower_case[c]) for c in close)}?"
    return f"known are: {', '.join(names)}" if names else "none are known"
