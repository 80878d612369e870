"""How convolutional networks see: the small package behind the course.

Start with `vislib.core` (one mechanism for all explanations), then a family of methods
(`vislib.explain.gradients`, `vislib.explain.cam`), then what they are measured with (`vislib.measure.energy`,
`vislib.measure.benchmark`). The notebooks walk through all of it.
"""
