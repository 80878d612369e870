"""Interactive figure of notebook 06: the nearest neighbours of an image in each layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from vislib import show
from vislib.data.objects import Crops
from vislib.features.neighbours import nearest_neighbours
from vislib.widgets import int_slider, interactive_figure

if TYPE_CHECKING:
    from ipywidgets import VBox


def neighbours_at(spaces: Mapping[str, Tensor], query: int, depth: int, k: int = 5) -> list[int]:
    """Indices of the `k` nearest neighbours of one image in one feature space, nearest first.

    Args:
        spaces: features of the same N images in several layers, N×D each, by name.
        query: index of the image.
        depth: number of the feature space, from 0.
        k: number of neighbours.

    >>> import torch
    >>> neighbours_at({"pixels": torch.tensor([[0.0], [1.0], [3.0]])}, query=2, depth=0, k=2)
    [1, 0]
    """
    features = list(spaces.values())[depth]
    indices = nearest_neighbours(features, k + 1, queries=features[query][None])[0].tolist()
    return [index for index in indices if index != query][:k]


def draw_rows(
    crops: Crops, rows: Sequence[tuple[str, int, Sequence[int]]], *, size: float = 1.8
) -> None:
    """Draw rows of an image and its neighbours; ✓ marks the same category, ✗ another category.

    Args:
        crops: images with their categories.
        rows: title, index of the image, and indices of its neighbours for each row.
        size: width of an image in inches.
    """
    import matplotlib.pyplot as plt

    columns = 1 + max(len(neighbours) for _, _, neighbours in rows)
    descriptions = []
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
        for line, (title, query, neighbours) in zip(axes, rows, strict=True):
            line[0].set_title(title, weight="bold")
            line[0].imshow(show.rgb(crops.images[query]))
            names = [crops.names[int(crops.labels[index])] for index in neighbours]
            hits = [bool(crops.labels[index] == crops.labels[query]) for index in neighbours]
            for axis, index, name, hit in zip(line[1:], neighbours, names, hits, strict=False):
                axis.imshow(show.rgb(crops.images[index]))
                axis.set_title(f"{'✓' if hit else '✗'} {name}")
            category = crops.names[int(crops.labels[query])]
            descriptions.append(f"{title} (image {query}, {category}): {', '.join(names)}")
        alt = f"Images, each with its nearest neighbours. {'. '.join(descriptions)}."
        show.figure(figure, alt=alt)


def draw_neighbours(crops: Crops, spaces: Mapping[str, Tensor], query: int, depth: int) -> None:
    """Draw two rows: an image's neighbours in the first space, and in the space number `depth`.

    Args:
        crops: images with their categories.
        spaces, query, depth: as in `neighbours_at`.
    """
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
    """Draw maps side by side, with marks for a few categories and grey dots for the others.

    Args:
        crops: images with their categories.
        maps: points of the images, N×2, by the title of the map.
        alt: what a reader who cannot see the figure should know, in a sentence.
        shown: names of the categories with marks, up to four.
    """
    import matplotlib.pyplot as plt

    labels = crops.labels.numpy()
    with show.style():
        figure, axes = plt.subplots(
            1, len(maps), figsize=(4.3 * len(maps), 4.9), squeeze=False, layout="constrained"
        )
        for axis, (title, points) in zip(axes[0], maps.items(), strict=True):
            axis.scatter(*points.T, s=14, color="0.8")
            for mark, colour, name in zip("o^sD", show.COLOURS, shown, strict=False):
                members = points[labels == crops.names.index(name)]
                style = {"s": 55, "marker": mark, "color": colour, "ec": "black", "lw": 0.5}
                axis.scatter(*members.T, label=name, **style)
            axis.set(title=title, xticks=[], yticks=[])
            axis.spines[:].set_visible(True)
        handles = axes[0][0].get_legend_handles_labels()
        figure.legend(*handles, loc="outside lower center", ncols=len(shown))
        show.figure(figure, alt=alt)


def neighbour_browser(
    crops: Crops, spaces: Mapping[str, Tensor], *, query: int = 0, depth: int = 1
) -> VBox:
    """Sliders for the image and for the layer; the upper row shows the first feature space.

    Args:
        crops: images with their categories.
        spaces: as in `neighbours_at`.
        query, depth: initial values of the sliders.
    """

    def draw(query: int, depth: int) -> None:
        draw_neighbours(crops, spaces, query, depth)

    return interactive_figure(
        draw,
        query=int_slider("image", query, 0, len(crops.images) - 1),
        depth=int_slider("layer", depth, 1, len(spaces) - 1),
    )
