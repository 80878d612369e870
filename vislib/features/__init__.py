"""What the units of a net look for: their filters, what excites them, and what they can see.

A *unit* is one channel of a layer; at each position of its map it looks at another window of the
picture. Four ways to ask what it looks for:

    filters     its weights as a picture, which works for the first layer only (`filter_pictures`)
    activity    how often and how strongly it fires, and whether it is dead (`activity`)
    patches     the windows that excite it most, out of many pictures (`top_patches`)
    views       the parts of a window that excite it, by a backward pass from it (`unit_view`)

and what it can see at all is its receptive field (`receptive_field`).
"""

from vislib.features.patches import TopPatches, patch_views, top_patches
from vislib.features.receptive_field import ReceptiveField, receptive_field
from vislib.features.units import Activity, activity, filter_pictures, first_filters, unit_view

__all__ = [
    "Activity",
    "ReceptiveField",
    "TopPatches",
    "activity",
    "filter_pictures",
    "first_filters",
    "patch_views",
    "receptive_field",
    "top_patches",
    "unit_view",
]
