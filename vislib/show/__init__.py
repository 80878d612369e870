"""Figures and tables of the course, at one width, with alt text for every figure.

maps            an image and its attribution maps, with heads, outlines, one scale per quantity
panels          images of any kind under their heads, in a row or a grid
photographs     photographs alone, as JPEG (`photograph` for one)
curves          lines in one or several axes, with one legend
intervals       dots with their intervals, one row for each method, one panel for each network
matrices        small matrices with the numbers in their cells
table           numbers as a table
figure          any other figure of matplotlib
name            display name of a network or a method; `layer_names` of layers

Each figure takes a `caption`, which is written below the figure and is the alt text, too. The
functions `overlay`, `fine` and `tinted` give the colours of one map for `panels`.
"""

from __future__ import annotations

from vislib.show.charts import curves, interval_figure, intervals
from vislib.show.colours import (
    COLOURS,
    DIVERGING,
    ImageLike,
    Look,
    coarse,
    fine,
    lightened,
    overlay,
    rgb,
    tinted,
)
from vislib.show.composition import Panel
from vislib.show.grids import grid, maps, panels, photograph, photographs
from vislib.show.images import frame, mosaic, outline
from vislib.show.matrix import Window, matrices, matrix_figure
from vislib.show.names import layer_names, name
from vislib.show.output import figure, style
from vislib.show.tables import table

__all__ = [
    "COLOURS",
    "DIVERGING",
    "ImageLike",
    "Look",
    "Panel",
    "Window",
    "coarse",
    "curves",
    "figure",
    "fine",
    "frame",
    "grid",
    "interval_figure",
    "intervals",
    "layer_names",
    "lightened",
    "maps",
    "matrices",
    "matrix_figure",
    "mosaic",
    "name",
    "outline",
    "overlay",
    "panels",
    "photograph",
    "photographs",
    "rgb",
    "style",
    "table",
    "tinted",
]
