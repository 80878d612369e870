"""Features that a network has learnt: functions of a layer, without a target class.

A **unit** is one channel of a layer. There are four ways to find out which pattern a unit detects:

    filters     the weights of the unit as an image, for the first layer only (`filter_images`)
    activity    how often and how strongly the unit fires, and whether it is dead (`activity`)
    patches     the parts of many images that excite the unit most (`top_patches`)
    views       the pixels that excite the unit, by a backward pass from it (`unit_view`)

Each position of the unit's feature map depends on a different part of the image, its receptive
field (`receptive_field`).

Two more modules: `vislib.features.deconvnet` sends feature maps back to the pixels, and
`vislib.features.neighbours` compares the feature vectors of images.
"""

from __future__ import annotations

from vislib.features.patches import TopPatches, patch_views, top_patches
from vislib.features.receptive_field import ReceptiveField, receptive_field
from vislib.features.units import Activity, activity, filter_images, first_filters, unit_view

__all__ = [
    "Activity",
    "ReceptiveField",
    "TopPatches",
    "activity",
    "filter_images",
    "first_filters",
    "patch_views",
    "receptive_field",
    "top_patches",
    "unit_view",
]
