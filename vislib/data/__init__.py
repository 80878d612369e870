"""Images and annotations: COCO, the scenes that ship with the course, and image files."""
