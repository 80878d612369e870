"""Measures of attribution maps, and the benchmark that applies them."""
