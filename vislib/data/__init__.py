"""Images and annotations: image files, COCO data sets, and the scenes that ship with the course."""
