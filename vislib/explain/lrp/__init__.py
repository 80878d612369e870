"""Layer-wise relevance propagation (LRP)."""

from vislib.explain.lrp.composites import COMPOSITES, Composite
from vislib.explain.lrp.propagation import LayerRelevance, lrp, relevance_by_layer

__all__ = ["COMPOSITES", "Composite", "LayerRelevance", "lrp", "relevance_by_layer"]
