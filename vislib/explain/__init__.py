"""Explanation methods: functions ``method(model, x, target)`` that return an attribution map.

`vislib.explain.gradients` explains the three arguments. The methods, by module:

    gradients    gradient, saliency, deconvnet, guided backprop, sensitivity, gradient × input
    averaging    SmoothGrad, integrated gradients
    cam          CAM, Grad-CAM, Guided Grad-CAM, Grad-CAM++, XGrad-CAM, LayerCAM, Eigen-CAM,
                 Score-CAM
    occlusion    occlusion by a sliding square
    taylor       simple Taylor decomposition
    fullgrad     FullGrad
    shapley      Shapley values of image regions
    lrp          layer-wise relevance propagation: rules, composites, propagation

The gradient is the rate at which the class score ``f = y_c`` changes with a pixel. Other methods
decompose the score: each pixel or region i gets a relevance ``R_i``, and the relevances sum to f,
or to its difference from the score of a baseline x'.

    method                  R_i                                        Σ_i R_i
    sensitivity             (∂f/∂x_i)²                                 ‖∇f‖², not f
    gradient × input        x_i ∂f/∂x_i                                f, if all activations are
                                                                       ReLUs and there are no biases
    simple Taylor           (x_i - x̃_i) ∂f/∂x_i(x̃), with f(x̃) = 0      f, to first order
    integrated gradients    (x_i - x'_i) ∫₀¹ ∂f/∂x_i dα, on the line   f(x) - f(x')
                            from the baseline x' to x
    Shapley values          mean contribution of region i to the       f(x) - f(x')
                            score, over all orders of the regions
    FullGrad, exact parts   x_i ∂f/∂x_i, and b ∂f/∂b for the biases    f, with the parts of the
                            of all layers                              biases
    LRP                     x_i Σ_j w_ij R_j / z_j, layer by layer     f, except for the relevance
                            from the score to the pixels               that biases and ε absorb
"""
