"""Images made by the net: one loop of gradient ascent under class models, dreams and styles.

An image ``x(θ)`` is changed until the net answers as wanted,

    θ* = argmax_θ  J(x(θ)),        J = y_c  −  λ ‖x − x̄‖²  −  …

Four things can be chosen, and each has one place:

    objective         J, N scores from what the net answers; written as the equation is:
                      ``logit(dog) - 1e-3 * l2() - 1e-3 * tv()``
    parametrisation   what θ is: `pixels`, `fourier` coefficients, the `code` of a decoder
    transforms        what happens to the image before the net sees it, anew in each step: `jitter`
    edits             what happens to the image after each step: `blur`, `clip_small_norms`

`ascend` is the loop. With ``log p(c|x)`` as first term and ``log p(x)`` as second (`log_prior`),
J is the logarithm of ``p(x|c)`` up to a constant, by Bayes' rule: each regulariser is a belief
about images.

Simonyan, Vedaldi & Zisserman 2014, "Deep Inside Convolutional Networks" (class models, L2).
Yosinski et al. 2015, "Understanding Neural Networks Through Deep Visualization" (blur, clipping).
Mahendran & Vedaldi 2015, "Understanding Deep Image Representations by Inverting Them" (TV, jitter).
Mordvintsev, Olah & Tyka 2015, "Inceptionism" (dreams).
Gatys, Ecker & Bethge 2016, "Image Style Transfer Using Convolutional Neural Networks".
Nguyen et al. 2016, "Synthesizing the Preferred Inputs for Neurons … via Deep Generator Networks".
Olah, Mordvintsev & Schubert 2017, "Feature Visualization" (Fourier, decorrelated colours).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vislib.core import Layer, Target, check_images, find_layer, frozen, record, score
from vislib.transforms import rotate_and_zoom

Optimiser = Callable[[list[Tensor]], torch.optim.Optimizer]
Transform = Callable[[Tensor, torch.Generator], Tensor]
Edit = Callable[[Tensor], Tensor]

sgd: Optimiser = partial(torch.optim.SGD, lr=0.05, momentum=0.9)
adam: Optimiser = partial(torch.optim.Adam, lr=0.05)
# One evaluation in each step, and no tolerances, which would end a climb of small numbers early.
lbfgs: Optimiser = partial(
    torch.optim.LBFGS, lr=1, max_iter=1, history_size=10, tolerance_grad=0, tolerance_change=0
)


# --- Objectives ------------------------------------------------------------------------------


@dataclass(frozen=True)
class View:
    """What an objective may look at in one step.

    Attributes:
        image: the image, N×C×H×W in [0, 1], before any transform.
        logits: the net's answer to the transformed image, N×K.
        maps: the outputs of the layers that the objective named.
        parameters: θ.
    """

    image: Tensor
    logits: Tensor = field(default_factory=lambda: torch.empty(0))
    maps: Mapping[Layer, Tensor] = field(default_factory=dict)
    parameters: Sequence[Tensor] = ()


@dataclass(frozen=True)
class Objective:
    """A function from what is `View` to N scores, and the layers that it looks at.

    Objectives add up and take factors, so that a sum looks as on paper:

    >>> J = logit(3) - 1e-3 * l2()
    >>> seen = View(image=torch.ones(1, 3, 2, 2), logits=torch.arange(5.0)[None])
    >>> round(float(J.score(seen)), 3)  # 3 − 0.001 · 12 · 0.5²
    2.997
    """

    score: Callable[[View], Tensor]
    layers: tuple[Layer, ...] = ()

    def __add__(self, other: Objective) -> Objective:
        """The sum of two objectives."""
        both = dict.fromkeys((*self.layers, *other.layers))
        return Objective(lambda seen: self.score(seen) + other.score(seen), tuple(both))

    def __mul__(self, factor: float) -> Objective:
        """The objective times a number."""
        return Objective(lambda seen: factor * self.score(seen), self.layers)

    __rmul__ = __mul__

    def __neg__(self) -> Objective:
        """The objective with the other sign."""
        return -1.0 * self

    def __sub__(self, other: Objective) -> Objective:
        """The difference of two objectives."""
        return self + -other


def logit(target: Target) -> Objective:
    """The class score ``y_c`` before the softmax; `target` is one class or N."""
    return Objective(lambda seen: score(seen.logits, target))


def log_probability(target: Target) -> Objective:
    """``log p(c|x)``: it also rises when the other classes fall."""
    return Objective(lambda seen: score(seen.logits.log_softmax(dim=1), target))


def channel(layer: Layer, index: int | Sequence[int]) -> Objective:
    """Mean of one map of a layer; with N indices each image has its own."""

    def mean(seen: View) -> Tensor:
        return score(seen.maps[layer].flatten(2).mean(dim=2), index)

    return Objective(mean, (layer,))


def neuron(layer: Layer, index: int | Sequence[int]) -> Objective:
    """One map of a layer at its middle place."""

    def middle(seen: View) -> Tensor:
        maps = seen.maps[layer]
        return score(maps[..., maps.shape[-2] // 2, maps.shape[-1] // 2], index)

    return Objective(middle, (layer,))


def layer_norm(layer: Layer) -> Objective:
    """Mean square of all of a layer: ``‖A‖² / size``, the deep dream's objective."""
    return Objective(lambda seen: seen.maps[layer].flatten(1).square().mean(dim=1), (layer,))


def alike(layer: Layer, guide: Tensor) -> Objective:
    """The dream guided by another image: each place raises its best match among the guide's places.

    ``Σ_p max_q ⟨A_p, G_q⟩ / places``, with A the layer's maps and `guide` G, 1×C×h×w, the same
    layer's maps of the other image.
    """

    def matches(seen: View) -> Tensor:
        maps = seen.maps[layer].flatten(2)
        best = torch.einsum("ncp,cq->npq", maps.detach(), guide[0].flatten(1)).argmax(dim=2)
        return (maps * guide[0].flatten(1).t()[best].transpose(1, 2)).sum(dim=1).mean(dim=1)

    return Objective(matches, (layer,))


def diversity(layer: Layer) -> Objective:
    """How unlike the N images are: minus the mean cosine between their Gram matrices.

    Olah, Mordvintsev & Schubert 2017. It needs N > 1 images, which are then made together.
    """

    def unlike(seen: View) -> Tensor:
        grams = F.normalize(gram(seen.maps[layer]).flatten(1), dim=1)
        cosines = grams @ grams.t()
        return -(cosines.sum(dim=1) - cosines.diagonal()) / (len(grams) - 1)

    return Objective(unlike, (layer,))


def content(layer: Layer, wanted: Tensor) -> Objective:
    """Minus the content loss ``½ Σ (F − P)²`` to the `wanted` maps P, 1×C×h×w or N×C×h×w."""

    def close(seen: View) -> Tensor:
        return -0.5 * (seen.maps[layer] - wanted).square().flatten(1).sum(dim=1)

    return Objective(close, (layer,))


def gram(maps: Tensor) -> Tensor:
    """Gram matrices ``G_ij = Σ_k F_ik F_jk`` over the places k: N×C×h×w to N×C×C."""
    flat = maps.flatten(2)
    return flat @ flat.transpose(1, 2)


def style(layer: Layer, wanted: Tensor) -> Objective:
    """Minus one layer's style loss ``Σ_ij (G_ij / M − A_ij / M')² / (4 C²)``.

    `wanted` are the style image's maps, 1×C×h×w; M and M' count the places of the two, so that the
    images may have different sizes. With M = M' it is Gatys' ``E_l``.
    """
    aim = gram(wanted) / wanted[0, 0].numel()

    def close(seen: View) -> Tensor:
        maps = seen.maps[layer]
        apart = gram(maps) / maps[0, 0].numel() - aim
        return -apart.square().flatten(1).sum(dim=1) / (4 * maps.shape[1] ** 2)

    return Objective(close, (layer,))


def l2(centre: float | Tensor = 0.5) -> Objective:
    """``‖x − centre‖²``, summed over pixels and channels; `centre` must broadcast with x."""
    return Objective(lambda seen: (seen.image - centre).square().flatten(1).sum(dim=1))


def tv() -> Objective:
    """Total variation: the sum of ``|x_ij − x_i+1,j| + |x_ij − x_i,j+1|`` over the channels too."""

    def variation(seen: View) -> Tensor:
        steps = (seen.image.diff(dim=axis).abs().flatten(1).sum(dim=1) for axis in (-2, -1))
        return sum(steps, torch.zeros((), device=seen.image.device))

    return Objective(variation)


def code_distance(mean: float | Tensor = 0.0) -> Objective:
    """``‖z − z̄‖²`` of a decoder's code, N×d, the prior of Nguyen et al. 2016."""
    return Objective(lambda seen: (seen.parameters[0] - mean).square().flatten(1).sum(dim=1))


def log_prior(images: Tensor) -> Objective:
    """``log p(x)`` up to a constant, for the Gaussian that has the mean and power of real images.

    ``−½ Σ_f (X_f − X̄_f)ᴴ S_f⁻¹ (X_f − X̄_f)``: X is the Fourier transform, and S_f the 3×3
    covariance of the colours at frequency f, which is taken from `images`, M×C×H×W (circles of like
    ``|f|`` share one, and a little white noise keeps it invertible). The Gaussian is the same
    everywhere in the image; it knows of smoothness and colour, and of nothing else.
    """
    height, width = check_images(images).shape[-2:]
    mean = images.mean(dim=(0, 2, 3), keepdim=True)
    X = torch.fft.fft2(images - mean, norm="ortho")
    ring = (_frequencies(height, width, full=True) * max(height, width)).round().long().flatten()
    outer = torch.einsum("mahw,mbhw->hwab", X, X.conj()).real / len(images)
    channels = images.shape[1]
    total = torch.zeros(int(ring.max()) + 1, channels, channels, dtype=images.dtype)
    S = total.index_add(0, ring, outer.flatten(0, 1)) / ring.bincount()[:, None, None]
    inverse = torch.linalg.inv(S + 1e-4 * torch.eye(channels).to(S))[ring]
    inverse = inverse.reshape(height, width, channels, channels).to(X.dtype)

    def log_p(seen: View) -> Tensor:
        x = torch.fft.fft2(seen.image - mean, norm="ortho")
        return -0.5 * torch.einsum("nahw,hwab,nbhw->n", x.conj(), inverse, x).real

    return Objective(log_p)


# --- Parametrisations ------------------------------------------------------------------------


@dataclass(frozen=True)
class Parametrisation:
    """What is optimised, and the image that it stands for.

    Attributes:
        parameters: the leaf tensors θ.
        image: makes the N×C×H×W image in [0, 1] of them.
        project: puts θ back where it may be, after each step.
        editable: whether θ is the image, so that edits can work on it.
    """

    parameters: list[Tensor]
    image: Callable[[], Tensor]
    project: Callable[[], Any] = lambda: None
    editable: bool = False


def pixels(start: Tensor) -> Parametrisation:
    """The pixels themselves, N×C×H×W, clipped to [0, 1] after each step."""
    x = check_images(start).detach().clone().requires_grad_()
    return Parametrisation([x], lambda: x, lambda: x.clamp_(0, 1), editable=True)


# Columns: the directions in which colours of natural images vary, times how far. The square root of
# the colours' covariance over every fifth of Pocket COCO's scenes; the largest column has length 1.
COLOURS = torch.tensor([[0.57, 0.38, 0.05], [0.60, -0.10, -0.17], [0.56, -0.28, 0.13]])


def fourier(start: Tensor, *, decay: float = 1.0, colours: Tensor | None = None) -> Parametrisation:
    """Fourier coefficients of decorrelated colours: ``x = sigmoid(C · F⁻¹(θ / f^decay))``.

    Natural images have amplitudes that fall as 1/f and channels that vary together. Here θ has
    neither, so that a step of equal size in all of θ changes an image as images differ:
    preconditioning. The sigmoid keeps x inside (0, 1).
    Olah, Mordvintsev & Schubert 2017.

    Args:
        start: the image to start from, N×C×H×W, in [0, 1].
        decay: the power of the frequency.
        colours: C×C; `COLOURS` for three channels, the identity for others. Its columns are the
            directions of colour.
    """
    channels, height, width = check_images(start).shape[1:]
    if colours is None:
        colours = COLOURS if channels == 3 else torch.eye(channels)
    colours = colours.to(start)
    lowest = 1 / max(height, width)
    scale = _frequencies(height, width).to(start).clamp(min=lowest) ** -decay

    inside = start.detach().clamp(1e-4, 1 - 1e-4).logit()
    plain = torch.einsum("ab,nbhw->nahw", torch.linalg.inv(colours), inside)
    theta = torch.view_as_real(torch.fft.rfft2(plain, norm="ortho") / scale)
    theta = theta.contiguous().requires_grad_()

    def image() -> Tensor:
        spectrum = torch.view_as_complex(theta) * scale
        plain = torch.fft.irfft2(spectrum, s=(height, width), norm="ortho")
        return torch.einsum("ab,nbhw->nahw", colours, plain).sigmoid()

    return Parametrisation([theta], image)


def code(decoder: Callable[[Tensor], Tensor], start: Tensor) -> Parametrisation:
    """The code z, N×d, of a decoder: ``x = g(z)``, in [0, 1]. The decoder is not changed."""
    z = start.detach().clone().requires_grad_()
    return Parametrisation([z], lambda: decoder(z))


def _frequencies(height: int, width: int, *, full: bool = False) -> Tensor:
    """``|f|`` in cycles per pixel of each coefficient of rfft2, or of fft2."""
    across = torch.fft.fftfreq(width) if full else torch.fft.rfftfreq(width)
    return torch.hypot(torch.fft.fftfreq(height)[:, None], across[None])


# --- Transforms and edits --------------------------------------------------------------------


def jitter(most: int) -> Transform:
    """Roll the image by up to `most` pixels each way, anew in each step."""

    def roll(x: Tensor, generator: torch.Generator) -> Tensor:
        by = torch.randint(-most, most + 1, (2,), generator=generator).tolist()
        return x.roll(by, dims=(-2, -1))

    return roll


def wobble(degrees: float = 8.0, zoom: float = 0.1) -> Transform:
    """Turn by up to `degrees` and zoom by up to the share `zoom`, about the middle.

    What comes in at the border is the mirrored image.
    """

    def turn(x: Tensor, generator: torch.Generator) -> Tensor:
        u, v = (2 * torch.rand(2, generator=generator) - 1).tolist()
        return rotate_and_zoom(x, torch.tensor(u * degrees).deg2rad(), 1 + v * zoom)

    return turn


def blur(sigma: float) -> Edit:
    """Smooth the image with a Gaussian of `sigma` pixels; the border repeats."""
    reach = max(1, round(3 * sigma))
    bell = torch.exp(-0.5 * (torch.arange(-reach, reach + 1.0) / sigma) ** 2)
    bell = bell / bell.sum()

    def smooth(x: Tensor) -> Tensor:
        kernel = bell.to(x).expand(x.shape[1], 1, -1)
        padded = F.pad(x, (reach,) * 4, mode="replicate")
        rows = F.conv2d(padded, kernel[:, :, None], groups=x.shape[1])
        return F.conv2d(rows, kernel[..., None], groups=x.shape[1])

    return smooth


def clip_small_norms(percent: float, centre: float | Tensor = 0.5) -> Edit:
    """Set the given percentage of the pixels, those nearest to `centre` in colour, to `centre`."""

    def clip(x: Tensor) -> Tensor:
        away = torch.linalg.vector_norm(x - centre, dim=1, keepdim=True)
        limit = away.flatten(1).quantile(percent / 100, dim=1).view(-1, 1, 1, 1)
        return torch.where(away < limit, torch.as_tensor(centre).to(x), x)

    return clip


def unit_mean(gradient: Tensor) -> Tensor:
    """Each image's gradient over its mean absolute value: steps of equal size (deep dream)."""
    size = gradient.abs().flatten(1).mean(dim=1)
    return gradient / size.clamp(min=1e-12).view(-1, *[1] * (gradient.ndim - 1))


# --- The loop --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Ascent:
    """What `ascend` returns.

    Attributes:
        image: the image after the last step, N×C×H×W in [0, 1].
        trace: the objective at each evaluation, evaluations×N, from the starting image on. SGD and
            Adam evaluate once in a step.
        seconds: the time since the start at which each evaluation was over.
        parameters: θ after the last step.
    """

    image: Tensor
    trace: Tensor
    seconds: list[float]
    parameters: list[Tensor]


def ascend(
    model: nn.Module,
    objective: Objective,
    start: Tensor | Parametrisation,
    *,
    steps: int = 80,
    optimiser: Optimiser = sgd,
    transforms: Sequence[Transform] = (),
    edits: Sequence[Edit] = (),
    rescale: Callable[[Tensor], Tensor] | None = None,
    seed: int = 0,
    watch: Callable[[int, Tensor], Any] | None = None,
) -> Ascent:
    """Change an image, step by step, so that the objective rises.

    The N images of a batch do not influence each other, unless the objective says so (`diversity`).
    Interrupting it (KeyboardInterrupt, the notebook's stop button) returns what there is so far.

    Args:
        model: N×C×H×W in [0, 1] to N×K logits. It is left as it was.
        objective: what is to rise.
        start: the image to start from (then `pixels` is the parametrisation), or a parametrisation.
        steps: of the optimiser.
        optimiser: makes one from a list of parameters: `sgd` (Simonyan's momentum 0.9), `adam`,
            `lbfgs` or ``functools.partial`` of any of `torch.optim`.
        transforms: functions of the image and a generator, applied before the net.
        edits: functions of the image, applied after each step; only with `pixels`.
        rescale: applied to each gradient, as `unit_mean`.
        seed: of the transforms; the global random state is not used.
        watch: called with the number of the step, from 1 on, and the image after it.

    Raises:
        ValueError: no steps, edits without pixels, a layer that does not exist, or an objective
            that is not N numbers or not finite.
    """
    theta = start if isinstance(start, Parametrisation) else pixels(start)
    if steps < 1:
        raise ValueError(f"steps must be at least 1, got {steps}")
    if edits and not theta.editable:
        raise ValueError("edits work on pixels: give them to an ascent from pixels(…), or none")
    names = {layer: find_layer(model, layer)[0] for layer in objective.layers}
    generator = torch.Generator().manual_seed(seed)
    optimise = optimiser(theta.parameters)
    trace: list[Tensor] = []
    seconds: list[float] = []
    began = time.perf_counter()

    def evaluate() -> float:
        image = theta.image()
        x = image
        for transform in transforms:
            x = transform(x, generator)
        logits = model(x)
        maps = {layer: outputs[name] for layer, name in names.items()}
        scores = _checked(objective.score(View(image, logits, maps, theta.parameters)), image)
        gradients = torch.autograd.grad(-scores.sum(), theta.parameters)
        for parameter, gradient in zip(theta.parameters, gradients, strict=True):
            parameter.grad = rescale(gradient) if rescale else gradient
        trace.append(scores.detach())
        seconds.append(time.perf_counter() - began)
        return -float(scores.detach().sum())

    with frozen(model), record(model, list(names.values())) as outputs:
        try:
            for step in range(1, steps + 1):
                optimise.step(evaluate)
                with torch.no_grad():
                    theta.project()
                    for edit in edits:
                        theta.parameters[0].copy_(edit(theta.parameters[0]).clamp(0, 1))
                if watch:
                    watch(step, theta.image().detach().clone())
        except KeyboardInterrupt:
            if not trace:
                raise
    done = [parameter.detach() for parameter in theta.parameters]
    return Ascent(theta.image().detach().clone(), torch.stack(trace), seconds, done)


def _checked(scores: Tensor, image: Tensor) -> Tensor:
    if scores.shape != (len(image),):
        raise ValueError(
            f"an objective gives one number for each of the {len(image)} images, "
            f"this one gave shape {tuple(scores.shape)}"
        )
    if not scores.isfinite().all():
        raise ValueError("the objective became NaN or infinite: take smaller steps")
    return scores


def noise(*shape: int, mean: float = 0.5, std: float = 0.1, seed: int = 0) -> Tensor:
    """Gaussian noise around `mean`, clipped to [0, 1]: the same for a seed everywhere."""
    generator = torch.Generator().manual_seed(seed)
    return (mean + std * torch.randn(shape, generator=generator)).clamp(0, 1)


# --- What is built on it ---------------------------------------------------------------------


def maps_of(model: nn.Module, image: Tensor, *layers: Layer) -> dict[Layer, Tensor]:
    """The outputs of some layers for an image, N×C×H×W, without gradients."""
    names = {layer: find_layer(model, layer)[0] for layer in layers}
    with frozen(model), record(model, list(names.values())) as outputs, torch.no_grad():
        model(check_images(image))
    return {layer: outputs[name] for layer, name in names.items()}


def dream(
    model: nn.Module,
    objective: Objective,
    image: Tensor,
    *,
    octaves: int = 3,
    ratio: float = 1.4,
    steps: int = 10,
    lr: float = 0.01,
    wander: int = 16,
    seed: int = 0,
    watch: Callable[[int, Tensor], Any] | None = None,
) -> Tensor:
    """Deep dream: raise the objective from a photograph, from small copies of it to the full size.

    Each octave is `ratio` times larger than the one before and begins with the photograph at that
    size, plus the enlarged detail that was dreamt so far. So the net's patterns come in all sizes
    while the photograph stays sharp.
    Mordvintsev, Olah & Tyka 2015, "Inceptionism: Going Deeper into Neural Networks".

    Args:
        model: as for `ascend`.
        objective: usually `layer_norm` of an inner layer.
        image: N×3×H×W in [0, 1].
        octaves: sizes, the last one is the image's own.
        ratio: of one size to the one before.
        steps: in each octave.
        lr: the mean change of a pixel in one step.
        wander: most pixels of the jitter.
        seed: of the jitter.
        watch: called with the number of the octave, from 0 on, and the image after it, at its size.

    Returns:
        The dream, N×3×H×W in [0, 1].
    """
    full = check_images(image).shape[-2:]
    if octaves < 1 or ratio <= 1:
        raise ValueError(f"octaves ≥ 1 and ratio > 1 are needed, not {octaves} and {ratio}")
    dreamt = torch.zeros_like(image)
    for octave in range(octaves):
        shrink = ratio ** (octave + 1 - octaves)
        size = [max(1, round(length * shrink)) for length in full]
        base = F.interpolate(image, size, mode="bilinear", antialias=True)
        detail = F.interpolate(dreamt, size, mode="bilinear", antialias=True)
        found = ascend(
            model,
            objective,
            (base + detail).clamp(0, 1),
            steps=steps,
            optimiser=partial(torch.optim.SGD, lr=lr),
            transforms=[jitter(wander)],
            rescale=unit_mean,
            seed=seed + octave,
        ).image
        dreamt = found - base
        if watch:
            watch(octave, found)
    return found
