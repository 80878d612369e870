"""Images and annotations: image files, COCO data sets, and the scenes that ship with the course."""

from __future__ import annotations

# The categories of `vislib benchmark` and `vislib fetch`, unless others are named.
CATEGORIES = ("airplane", "boat", "dog", "elephant", "teddy bear", "traffic light")
