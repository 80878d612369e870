"""Features that a network has learnt: functions of a layer, without a target class.

A **unit** is one channel of a layer. At each position of its feature map it depends on another part
of the image. Four ways to find out which pattern it detects:

    filters     its weights as an image, for the first layer only (`filter_images`)
    activity    how often and how strongly it fires, and whether it is dead (`activity`)
    patches     the parts of many images that excite it most (`top_patches`)
    views       the pixels that excite it, by a backward pass from it (`unit_view`)

The part of the image that it depends on is its receptive field (`receptive_field`).

Two modules treat whole layers: `vislib.features.deconvnet` sends feature maps back to the pixels,
and `vislib.features.neighbours` compares the feature vectors of images.
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
