"""Layer-wise relevance propagation (LRP).

LRP decomposes the score ``f(x) = y_c`` of a target class: each pixel gets a relevance ``R_i``, and
``Σ_i R_i ≈ f(x)``. Relevance starts at the score and is propagated back through the network, layer
by layer. A layer ``z_j = Σ_i x_i w_ij + b_j`` receives the relevance ``R_j`` of its outputs and
redistributes it to its inputs in proportion to their contributions ``x_i w_ij``:

    R_i = Σ_j  x_i w_ij / z_j · R_j

This rule is LRP-0. Relevance is conserved, ``Σ_i R_i = Σ_j R_j``, except for the relevance that
biases and stabilisers absorb. Other rules change the contributions, and a composite assigns a rule
to each layer:

    rules        redistribution in one layer: LRP-0, ε, γ, αβ, z⁺, zB, w², flat
    operations   operations of a forward pass as layers with weights and biases
    composites   assignment of rules to the layers of a network
    propagation  propagation from the score to the pixels: `lrp` and `relevance_by_layer`

References:
    Bach, Binder, Montavon, Klauschen, Müller & Samek 2015, "On Pixel-Wise Explanations for
    Non-Linear Classifier Decisions by Layer-Wise Relevance Propagation".
    Montavon, Binder, Lapuschkin, Samek & Müller 2019, "Layer-Wise Relevance Propagation: An
    Overview".
"""

from __future__ import annotations

from vislib.explain.lrp.composites import COMPOSITES, Composite
from vislib.explain.lrp.propagation import LayerRelevance, lrp, relevance_by_layer

__all__ = ["COMPOSITES", "Composite", "LayerRelevance", "lrp", "relevance_by_layer"]
