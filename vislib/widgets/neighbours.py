"""Widget of notebook 06: a picture, and what is alike to it for the pixels and for each layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from vislib import show
from vislib.data.objects import Crops
from vislib.features.neighbours import nearest

if TYPE_CHECKING:
    from ipywidgets import VBox


def neighbours_at(spaces: Mapping[str, Tensor], query: int, depth: int, k: int = 5) -> list[int]:
    """The `k` nearest pictures of one picture in the space number `depth`, nearest first."""
    features = list(spaces.values())[depth]
    found = nearest(features, k + 1, queries=features[query][None])[0].tolist()
    return [index for index in found if index != query][:k]


def draw_rows(
    crops: Crops, rows: Sequence[tuple[str, int, Sequence[int]]], *, size: float = 1.8
) -> None:
    """Rows of a picture and its neighbours: a title, the picture's number, and theirs.

    A neighbour of the same category has a tick in its title, another one a cross.
    """
    import matplotlib.pyplot as plt

    columns = 1 + max(len(found) for _, _, found in rows)
    words = []
    with show.style():
        figure, axes = plt.subplots(
            len(rows),
            columns,
            figsize=(size * columns, (size + 0.4) * len(rows)),
            squeeze=False,
            layout="constrained",
        )
        for axis in axes.flat:
            axis.axis("off")
        for line, (title, query, found) in zip(axes, rows, strict=True):
            line[0].set_title(title, weight="bold")
            line[0].imshow(show.picture(crops.images[query]))
            names = [crops.names[int(crops.labels[index])] for index in found]
            hits = [bool(crops.labels[index] == crops.labels[query]) for index in found]
            for axis, index, name, hit in zip(line[1:], found, names, hits, strict=False):
                axis.imshow(show.picture(crops.images[index]))
                axis.set_title(f"{'✓' if hit else '✗'} {name}")
            own = crops.names[int(crops.labels[query])]
            words.append(f"{title} (picture {query}, {own}): {', '.join(names)}")
        alt = f"Pictures, each with its nearest ones. {'. '.join(words)}."
        show.display(figure, alt)


def draw_neighbours(crops: Crops, spaces: Mapping[str, Tensor], query: int, depth: int) -> None:
    """Two rows: the picture's neighbours in the first space, and in the space number `depth`."""
    names = list(spaces)
    rows = [(names[which], query, neighbours_at(spaces, query, which)) for which in (0, depth)]
    draw_rows(crops, rows)


def draw_maps(
    crops: Crops,
    maps: Mapping[str, np.ndarray],
    *,
    alt: str,
    shown: Sequence[str] = ("zebra", "clock", "cat", "dog"),
) -> None:
    """Maps (title to points, N×2) side by side; a few categories have marks, the rest are grey."""
    import matplotlib.pyplot as plt

    labels = crops.labels.numpy()
    with show.style():
        figure, axes = plt.subplots(
            1, len(maps), figsize=(4.3 * len(maps), 4.9), squeeze=False, layout="constrained"
        )
        for axis, (title, points) in zip(axes[0], maps.items(), strict=True):
            axis.scatter(*points.T, s=14, color="0.8")
            for mark, colour, name in zip("o^sD", show.COLOURS, shown, strict=False):
                own = points[labels == crops.names.index(name)]
                style = {"s": 55, "marker": mark, "color": colour, "ec": "black", "lw": 0.5}
                axis.scatter(*own.T, label=name, **style)
            axis.set(title=title, xticks=[], yticks=[])
            axis.spines[:].set_visible(True)
        handles = axes[0][0].get_legend_handles_labels()
        figure.legend(*handles, loc="outside lower center", ncols=len(shown))
        show.display(figure, alt)


def neighbour_browser(
    crops: Crops, spaces: Mapping[str, Tensor], *, query: int = 0, depth: int = 1
) -> VBox:
    """A slider for the picture and one for the layer; the first space is the row above."""
    from vislib.widgets import sliders, whole

    def draw(query: int, depth: int) -> None:
        draw_neighbours(crops, spaces, query, depth)

    return sliders(
        draw,
        query=whole("picture", query, 0, len(crops.images) - 1),
        depth=whole("layer", depth, 1, len(spaces) - 1),
    )
