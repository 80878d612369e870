"""Rows and grids of images and attribution maps, with heads, outlines and one key.

The figures are drawn by `vislib.show.composition`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from vislib.show import colours
from vislib.show.colours import ImageLike, Look, rgb
from vislib.show.composition import Masks, Panel, compose
from vislib.show.names import name
from vislib.show.output import NO_CAPTION, show_image

Map = Tensor | np.ndarray
Position = tuple[str, str]


# --- Figures --------------------------------------------------------------------------------------


def maps(
    image: ImageLike | Mapping[str, ImageLike],
    maps: Mapping[str, Any],
    *,
    masks: Mapping[str, Any] | None = None,
    target: str | Mapping[str, str] = "",
    look: Look | Mapping[str, Look] = "auto",
    scale: str = "column",
    first: str = "image",
    notes: Mapping[str, Any] | None = None,
    columns: int | None = None,
    caption: str = "",
    alt: str = "",
    file: str | Path | None = None,
) -> None:
    """Show an image and its attribution maps, in a row or in a grid with heads.

    Args:
        image: the image, in any form that `rgb` takes; or the image of each row by its head.
        maps: attribution maps, raw and signed, C×h×w, by their heads; or for a grid one such
            mapping for each row, by the head of the row. Names of methods and networks become
            display names (see `name`).
        masks: masks of the objects, H×W, by their names; their outlines are drawn on every panel.
            If each row has another image, masks by the head of the row.
        target: name of the mask of the target class: its outline is solid, all others are dashed.
            If there is only one mask, it is the target. If each row has another target, names by
            the head of the row.
        look: look of all maps, or of each map by its head. ``"overlay"`` is for coarse maps,
            ``"fine"`` for maps of single pixels; ``"auto"`` chooses one of these for each head.
            ``"signed"`` shows signs in red and blue, and ``"rgb"`` three channels around mid-grey.
        scale: maps that have one scale because they are of one quantity: those of a ``"column"``, a
            ``"row"``, the whole ``"figure"``, or each ``"map"`` on its own.
        first: head of the image itself, which is the first panel; if it is empty, the image is not
            shown separately.
        notes: texts below the maps, with the keys of `maps`.
        columns: number of panels in a row, if `maps` is not a grid; by default the number that
            gives the largest panels.
        caption: sentence below the figure, which is the alt text, too. It says the result.
        alt: alt text that is not visible, if there is no caption or if it differs.
        file: also write the figure to this file.

    Raises:
        ValueError: the sizes of image, map and mask do not match, a map has NaN or infinite values,
            or an argument is not one of the values above.
    """
    rows = _map_panels(image, maps, (masks, target), (look, scale), first, notes)
    _show(rows, columns, caption, alt, file, kind="Attribution maps")


def panels(
    images: Mapping[str, Any],
    *,
    masks: Masks | None = None,
    target: str = "",
    columns: int | None = None,
    caption: str = "",
    alt: str = "",
    file: str | Path | None = None,
) -> None:
    """Show images of any kind under their heads, in a row or in a grid.

    Args:
        images: images by their heads, in any form that `rgb` takes; or for a grid one such mapping
            for each row, by the head of the row. Names of methods and networks become display
            names (see `name`).
        masks: masks H×W whose outlines are drawn on every image, by the names of the objects.
        target: name of the mask whose outline is solid; all others are dashed.
        columns: number of panels in a row, if `images` is not a grid; by default the number that
            gives the largest panels.
        caption: sentence below the figure, which is the alt text, too. It says the result.
        alt: alt text that is not visible, if there is no caption or if it differs.
        file: also write the figure to this file.

    Raises:
        ValueError: an image or a mask does not have a size as described.
    """
    _show(_panels(images, masks or {}, target), columns, caption, alt, file, kind="Images")


def photographs(
    images: Mapping[str, Any],
    *,
    columns: int | None = None,
    caption: str = "",
    alt: str = "",
    file: str | Path | None = None,
) -> None:
    """Show photographs alone: as `panels`, but stored as JPEG with the colours in full resolution.

    Args:
        images: as in `panels`.
        columns: as in `panels`.
        caption: as in `panels`.
        alt: as in `panels`.
        file: as in `panels`.
    """
    shown = _panels(images, {}, "")
    _show(shown, columns, caption, alt, file, kind="Photographs", jpeg=True)


def photograph(image: ImageLike, *, caption: str = "", alt: str = "") -> None:
    """Show one photograph as large as a figure may be.

    Args:
        image: in any form that `rgb` takes.
        caption: as in `panels`.
        alt: as in `panels`.
    """
    photographs({"": image}, caption=caption, alt=alt or caption)


def grid(images: Mapping[str, Any], **options: Any) -> Image.Image:
    """Bitmap of `panels`, without showing it.

    Args:
        images: as in `panels`; the images may also be of type `Panel`.
        **options: `masks`, `target` and `columns` as in `panels`.

    >>> import torch
    >>> grid({"left": torch.rand(3, 64, 96), "right": torch.rand(3, 64, 96)}).size[0]
    2100
    """
    columns = options.pop("columns", None)
    masks, target = options.pop("masks", None) or {}, options.pop("target", "")
    return compose(_panels(images, masks, target, **options), columns)


def _show(
    rows: Mapping[str, Any],
    columns: int | None,
    caption: str,
    alt: str,
    file: str | Path | None,
    *,
    kind: str,
    jpeg: bool = False,
) -> None:
    heads = [name(head) for row in rows.values() if isinstance(row, Mapping) for head in row]
    heads = list(dict.fromkeys([name(head) for head in rows] + heads))
    alt = alt or caption or f"{NO_CAPTION}. {kind}: {', '.join(filter(None, heads))}"
    show_image(compose(rows, columns), alt=alt, caption=caption, jpeg=jpeg, file=file)


# --- Panels from the arguments --------------------------------------------------------------------


def _map_panels(
    image: ImageLike | Mapping[str, ImageLike],
    maps: Mapping[str, Any],
    objects: tuple[Mapping[str, Any] | None, str | Mapping[str, str]],
    colouring: tuple[Look | Mapping[str, Look], str],
    first: str,
    notes: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """Panels of `maps`: by head, or by the head of the row and the head of the column."""
    nested = _is_nested(maps)
    table: dict[str, dict[str, Map]] = dict(maps) if nested else {"": dict(maps)}
    images = {row: rgb(image[row] if isinstance(image, Mapping) else image) for row in table}
    looks = _looks(table, images, colouring[0])
    tops = _tops(table, looks, colouring[1])
    rows: dict[str, dict[str, Panel]] = {}
    for row, entries in table.items():
        masks, target = _masks_of(objects[0], row), objects[1]
        aim = _aim(masks, target if isinstance(target, str) else target.get(row, ""))
        texts = (notes or {}).get(row, {}) if nested else notes or {}
        rows[row] = {first: Panel(images[row], masks, aim)} if first else {}
        for head, one in entries.items():
            pixels = _draw(images[row], one, looks[row, head], tops[row, head], str(head))
            note = str(texts.get(head, ""))
            rows[row][head] = Panel(pixels, masks, aim, note, looks[row, head])
    return dict(rows) if nested else dict(rows[""])


def _is_nested(values: Mapping[str, Any]) -> bool:
    """Whether the values are mappings themselves, that is rows of a grid."""
    if not isinstance(values, Mapping) or not values:
        raise ValueError(
            'maps and images must be a mapping by their heads, such as {"gradient": map}, with at '
            f"least one entry, got {values if values == {} else type(values).__name__}"
        )
    kinds = {isinstance(value, Mapping) for value in values.values()}
    if len(kinds) > 1:
        raise ValueError(
            "either all or none of the entries must be rows, got both: give each row a head"
        )
    return kinds.pop()


def _panels(images: Mapping[str, Any], masks: Masks, target: str) -> dict[str, Any]:
    """The same mapping, flat or nested, with a `Panel` for each image."""
    if _is_nested(images):
        return {row: _panels(entries, masks, target) for row, entries in images.items()}
    aim = _aim(masks, target)
    return {
        head: one if isinstance(one, Panel) else Panel(rgb(one), masks, aim)
        for head, one in images.items()
    }


def _masks_of(masks: Mapping[str, Any] | None, row: str) -> Masks:
    """Masks for a row; each row may have other ones."""
    if not masks:
        return {}
    return masks.get(row, {}) if _is_nested(masks) else masks


def _aim(masks: Masks, target: str) -> str:
    """Name of the mask with the solid outline: the target, or the only mask."""
    if target and masks and target not in masks:
        raise ValueError(f"target must be one of the masks {', '.join(masks)}, got {target!r}")
    return target or (next(iter(masks)) if len(masks) == 1 else "")


def _looks(
    table: Mapping[str, Mapping[str, Map]],
    images: Mapping[str, np.ndarray],
    look: Look | Mapping[str, Look],
) -> dict[Position, str]:
    """Look of each map; maps with the same head have the same look."""
    looks: dict[Position, str] = {}
    heads = dict.fromkeys(head for entries in table.values() for head in entries)
    for head in heads:
        chosen: str = look.get(head, "auto") if isinstance(look, Mapping) else look
        if chosen not in ("auto", "overlay", "fine", "signed", "rgb"):
            raise ValueError(
                f"look must be auto, overlay, fine, signed or rgb, got {chosen!r} for {head!r}"
            )
        here = {row: entries[head] for row, entries in table.items() if head in entries}
        smooth = [
            colours.is_smooth(colours.channels(one, f"map {head!r}"), images[row].shape[:2])
            for row, one in here.items()
        ]
        if chosen == "auto":
            chosen = "overlay" if 2 * sum(smooth) > len(smooth) else "fine"
        elif chosen == "signed" and all(smooth):
            chosen = "signed overlay"
        looks |= {(row, head): chosen for row in here}
    return looks


def _tops(
    table: Mapping[str, Mapping[str, Map]], looks: Mapping[Position, str], scale: str
) -> dict[Position, float]:
    """Value at which the scale of each map ends; maps of one quantity have the same."""
    groups = {
        "map": lambda row, head: (row, head),
        "row": lambda row, head: row,
        "column": lambda row, head: head,
        "figure": lambda row, head: "",
    }
    if scale not in groups:
        raise ValueError(f"scale must be map, row, column or figure, got {scale!r}")
    tops: dict[Any, float] = {}
    for (row, head), look in looks.items():
        # Maps with different looks cannot have one scale.
        group = (groups[scale](row, head), look)
        tops[group] = max(tops.get(group, 0.0), _top(table[row][head], look))
    return {at: tops[groups[scale](*at), look] for at, look in looks.items()}


def _top(one: Map, look: str) -> float:
    """End of the scale for one map."""
    values = colours.channels(one)
    if look == "overlay":
        return float(values.sum(axis=0).max())
    if look == "signed overlay":
        return float(np.abs(values.sum(axis=0)).max())
    if look == "rgb":
        return colours.top_of(values, 99)
    return colours.top_of(colours.fine_values(one, signed=look == "signed"), 99.5)


def _draw(image: np.ndarray, one: Map, look: str, top: float, head: str) -> np.ndarray:
    """Pixels of a map in its look, at the size of the image."""
    title = f"map {head!r}"
    values = colours.fitting(colours.channels(one, title), image.shape, title)
    # A scale that ends at 0 belongs to maps without values to show.
    end = top if top > 0 else None
    if look in ("overlay", "signed overlay"):
        return colours.overlay(image, values, signed=look != "overlay", top=end)
    values = np.stack([colours.enlarged(channel, image.shape[:2]) for channel in values])
    if look == "rgb":
        return colours.tinted(values, top=end)
    return colours.fine(values, signed=look == "signed", top=end)
