"""Figures in the notebook: HTML with alt text, at one width, and the style of matplotlib.

JupyterLab and nbconvert read alt text only from the ``alt`` attribute of an ``<img>``, not from the
metadata of an image. So every figure is shown as HTML. Its bitmap has twice the size at which it is
shown, for screens with a high resolution.
"""

from __future__ import annotations

import io
from base64 import b64encode
from contextlib import contextmanager
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from vislib.show.colours import COLOURS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from matplotlib.figure import Figure

WIDTH, HEIGHT = 1050, 600
"""Width and largest height of a figure, in pixels of a web page (CSS pixels)."""
RATIO = 2
"""Pixels of the bitmap per CSS pixel."""
DPI = 100 * RATIO
"""Pixels of the bitmap per inch of matplotlib: one inch is 100 CSS pixels."""
LETTERS = 16
"""Smallest size of letters, in CSS pixels."""
NO_CAPTION = "Figure without a caption"

# A PNG larger than this is mostly photograph, which a JPEG stores in a third of the bytes.
_MOST_PNG_BYTES = 500_000

_POINTS = LETTERS * 72 / 100
_STYLE: dict[Any, Any] = {
    "figure.dpi": 100,
    "figure.facecolor": "white",
    "figure.constrained_layout.use": True,
    "font.size": _POINTS,
    "axes.titlesize": 1.1 * _POINTS,
    "axes.labelsize": _POINTS,
    "xtick.labelsize": _POINTS,
    "ytick.labelsize": _POINTS,
    "legend.fontsize": _POINTS,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.prop_cycle": f"cycler('color', {list(COLOURS)})",
    "svg.hashsalt": "vislib",
    "svg.fonttype": "none",
}


@contextmanager
def style() -> Iterator[None]:
    """Context manager in which matplotlib has the course's style."""
    import matplotlib

    with matplotlib.rc_context(_STYLE):
        yield


def figure(
    drawn: Figure, *, caption: str = "", alt: str = "", file: str | Path | None = None
) -> None:
    """Show a figure of matplotlib with its caption and alt text, and close it.

    The figure gets the width of all figures, 1,050 CSS pixels, with its proportions as long as it
    is at most 600 CSS pixels high. Letters smaller than 16 CSS pixels are enlarged.

    Args:
        drawn: figure of matplotlib, best made within `style`.
        caption: sentence below the figure, which is the alt text, too. It says the result.
        alt: alt text that is not visible, if there is no caption or if it differs.
        file: also write the PNG to this file.
    """
    import matplotlib.pyplot as plt
    from matplotlib.text import Text

    if drawn.get_layout_engine() is None:
        drawn.set_layout_engine("constrained")
    wide, high = drawn.get_size_inches()
    drawn.set_size_inches(WIDTH / 100, min(high * WIDTH / 100 / wide, HEIGHT / 100))
    for text in drawn.findobj(Text):
        if isinstance(text, Text):
            text.set_fontsize(max(text.get_fontsize(), _POINTS))
    buffer = io.BytesIO()
    drawn.savefig(buffer, format="png", dpi=DPI, facecolor="white", metadata={"Software": None})
    plt.close(drawn)
    axes = [axis for axis in drawn.axes if axis.get_title() or axis.get_ylabel()]
    words = ", ".join(axis.get_title() or axis.get_ylabel() for axis in axes)
    alt = alt or caption or f"{NO_CAPTION}: {words or 'a chart'}"
    with Image.open(buffer) as image:
        show_image(image, alt=alt, caption=caption, file=file)


def show_image(
    image: Image.Image,
    *,
    alt: str,
    caption: str = "",
    jpeg: bool = False,
    file: str | Path | None = None,
) -> None:
    """Show a bitmap as HTML at half its size.

    Args:
        image: bitmap with `RATIO` pixels per CSS pixel.
        alt: alt text, not visible.
        caption: visible sentence below the image; none if it is empty.
        jpeg: whether to store a JPEG instead of a PNG, as for a PNG of more than 500 kB.
        file: also write the bitmap to this file.
    """
    from IPython.display import display

    data = encoded(image, jpeg=jpeg)
    if file is not None:
        Path(file).write_bytes(data)
    if len(data) > _MOST_PNG_BYTES and not jpeg:
        smaller = encoded(image, jpeg=True)
        if len(smaller) < len(data):
            jpeg, data = True, smaller
    alt = " ".join(alt.split())
    html = html_figure(data, image.size, alt=alt, caption=caption, jpeg=jpeg)
    display({"text/html": html, "text/plain": f"Figure: {alt}"}, raw=True)


def encoded(image: Image.Image, *, jpeg: bool = False) -> bytes:
    """Bytes of a PNG, or of a JPEG that keeps the full resolution of the colours (4:4:4)."""
    buffer = io.BytesIO()
    if jpeg:
        image.convert("RGB").save(buffer, format="jpeg", quality=90, subsampling=0, optimize=True)
    else:
        image.convert("RGB").save(buffer, format="png")
    return buffer.getvalue()


def html_figure(
    data: bytes, size: tuple[int, int], *, alt: str, caption: str = "", jpeg: bool = False
) -> str:
    """HTML of a figure.

    Args:
        data: bytes of the bitmap.
        size: width and height of the bitmap in pixels.
        alt: alt text.
        caption: visible sentence below the image; none if it is empty.
        jpeg: whether `data` is a JPEG and not a PNG.
    """
    width = round(size[0] / RATIO)
    source = f"data:image/{'jpeg' if jpeg else 'png'};base64,{b64encode(data).decode()}"
    below = (
        f'<figcaption style="font-size:{LETTERS}px">{escape(caption)}</figcaption>'
        if caption
        else ""
    )
    return (
        f'<figure style="margin:0.5em 0;max-width:{width}px"><img src="{source}" '
        f'alt="{escape(alt, quote=True)}" width="{width}" style="max-width:100%;height:auto">'
        f"{below}</figure>"
    )
