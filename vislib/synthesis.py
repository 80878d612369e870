"""Images by optimisation: one loop of gradient ascent for class models, deep dreams and styles.

The parameters θ of an image ``x(θ)`` are changed until an objective of the network is large:

    θ* = argmax_θ  J(x(θ)),        J = y_c  −  λ ‖x − x̄‖²  −  …

Four parts can be chosen:

    objective         J, one number for each image, written as in the equation:
                      ``logit(dog) - 1e-3 * l2() - 1e-3 * tv()``
    parametrisation   θ: `pixels`, `fourier` coefficients, or the `code` of a decoder
    transforms        random changes before each forward pass: `jitter`, `wobble`
    edits             changes of the image after each step: `blur`, `clip_small_norms`

`ascend` is the loop. With ``log p(c|x)`` as the first term and ``log p(x)`` (`log_prior`) as the
second, J is the logarithm of ``p(x|c)`` up to a constant, by Bayes' rule: each regulariser is an
assumption about images.

References:
    Simonyan, Vedaldi & Zisserman 2014, "Deep Inside Convolutional Networks" (class models, L2).
    Yosinski et al. 2015, "Understanding Neural Networks Through Deep Visualization" (blur,
    clipping).
    Mahendran & Vedaldi 2015, "Understanding Deep Image Representations by Inverting Them" (total
    variation, jitter).
    Mordvintsev, Olah & Tyka 2015, "Inceptionism: Going Deeper into Neural Networks" (deep dream).
    Gatys, Ecker & Bethge 2016, "Image Style Transfer Using Convolutional Neural Networks".
    Nguyen et al. 2016, "Synthesizing the Preferred Inputs for Neurons in Neural Networks via Deep
    Generator Networks".
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
# L-BFGS with one evaluation in each step. Its tolerances are 0, because with other values small
# gradients would end the ascent early.
lbfgs: Optimiser = partial(
    torch.optim.LBFGS, lr=1, max_iter=1, history_size=10, tolerance_grad=0, tolerance_change=0
)


# --- Objectives -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class View:
    """Input of an objective in one step.

    Attributes:
        image: the image, N×C×H×W in [0, 1], before any transform.
        logits: output of the network for the transformed image, N×K.
        maps: outputs of the layers that the objective names.
        parameters: leaf tensors θ of the parametrisation.
    """

    image: Tensor
    logits: Tensor = field(default_factory=lambda: torch.empty(0))
    maps: Mapping[Layer, Tensor] = field(default_factory=dict)
    parameters: Sequence[Tensor] = ()


@dataclass(frozen=True)
class Objective:
    """Function from a `View` to N numbers, with the layers that it needs.

    Objectives can be added, subtracted and multiplied by numbers, as on paper.

    Attributes:
        score: the function.
        layers: dotted names or modules whose outputs the function reads from ``view.maps``.

    >>> J = logit(3) - 1e-3 * l2()
    >>> view = View(image=torch.ones(1, 3, 2, 2), logits=torch.arange(5.0)[None])
    >>> round(float(J.score(view)), 3)  # 3 − 0.001 · 12 · 0.5²
    2.997
    """

    score: Callable[[View], Tensor]
    layers: tuple[Layer, ...] = ()

    def __add__(self, other: Objective) -> Objective:
        """Sum of two objectives."""
        both = dict.fromkeys((*self.layers, *other.layers))
        return Objective(lambda view: self.score(view) + other.score(view), tuple(both))

    def __mul__(self, factor: float) -> Objective:
        """Objective times a number."""
        return Objective(lambda view: factor * self.score(view), self.layers)

    __rmul__ = __mul__

    def __neg__(self) -> Objective:
        """Objective with the opposite sign."""
        return -1.0 * self

    def __sub__(self, other: Objective) -> Objective:
        """Difference of two objectives."""
        return self + -other


def logit(target: Target) -> Objective:
    """Objective ``y_c``: the class score before the softmax. `target` is one class or N of them."""
    return Objective(lambda view: score(view.logits, target))


def log_probability(target: Target) -> Objective:
    """Objective ``log p(c|x)``. `target` is one class or N of them.

    Unlike the logit, this objective also rises when the scores of other classes fall.
    """
    return Objective(lambda view: score(view.logits.log_softmax(dim=1), target))


def channel(layer: Layer, index: int | Sequence[int]) -> Objective:
    """Objective: mean of one channel of a layer. `index` is one channel or N of them."""

    def mean(view: View) -> Tensor:
        return score(view.maps[layer].flatten(2).mean(dim=2), index)

    return Objective(mean, (layer,))


def neuron(layer: Layer, index: int | Sequence[int]) -> Objective:
    """Objective: one channel of a layer at the central position. `index` is one channel or N."""

    def centre(view: View) -> Tensor:
        maps = view.maps[layer]
        return score(maps[..., maps.shape[-2] // 2, maps.shape[-1] // 2], index)

    return Objective(centre, (layer,))


def layer_norm(layer: Layer) -> Objective:
    """Objective of deep dream: the mean square of a layer's output, ``‖A‖² / size``.

    Mordvintsev, Olah & Tyka 2015. (This function is not layer normalisation.)
    """
    return Objective(lambda view: view.maps[layer].flatten(1).square().mean(dim=1), (layer,))


def similarity(layer: Layer, guide: Tensor) -> Objective:
    """Objective of a guided dream: similarity to the feature maps of another image.

        Σ_p max_q ⟨A_p, G_q⟩ / positions

    Each position p of the layer's output A is compared with its best match q in the guide G.
    Mordvintsev, Olah & Tyka 2015.

    Args:
        layer: layer of A.
        guide: G, the output of this layer for the other image, 1×C×h×w of any size h×w.
    """

    def mean_of_matches(view: View) -> Tensor:
        maps = view.maps[layer].flatten(2)
        best = torch.einsum("ncp,cq->npq", maps.detach(), guide[0].flatten(1)).argmax(dim=2)
        return (maps * guide[0].flatten(1).t()[best].transpose(1, 2)).sum(dim=1).mean(dim=1)

    return Objective(mean_of_matches, (layer,))


def diversity(layer: Layer) -> Objective:
    """Objective: minus the mean cosine of an image's Gram matrix with those of the other images.

    The batch needs at least two images, which influence each other. Olah, Mordvintsev & Schubert
    2017.
    """

    def minus_mean_cosine(view: View) -> Tensor:
        grams = F.normalize(gram(view.maps[layer]).flatten(1), dim=1)
        cosines = grams @ grams.t()
        return -(cosines.sum(dim=1) - cosines.diagonal()) / (len(grams) - 1)

    return Objective(minus_mean_cosine, (layer,))


def content(layer: Layer, target: Tensor) -> Objective:
    """Objective: minus the content loss, ``−½ Σ (F − P)²``.

    Gatys, Ecker & Bethge 2016, equation 1.

    Args:
        layer: layer of the feature maps F.
        target: feature maps P of the content image, 1×C×h×w or N×C×h×w.
    """

    def minus_loss(view: View) -> Tensor:
        return -0.5 * (view.maps[layer] - target).square().flatten(1).sum(dim=1)

    return Objective(minus_loss, (layer,))


def gram(maps: Tensor) -> Tensor:
    """Gram matrices ``G_ij = Σ_k F_ik F_jk`` over the positions k: N×C×h×w to N×C×C."""
    flat = maps.flatten(2)
    return flat @ flat.transpose(1, 2)


def style(layer: Layer, target: Tensor) -> Objective:
    """Objective: minus the style loss of one layer, ``−Σ_ij (G_ij / M − A_ij / M')² / (4 C²)``.

    G and A are the Gram matrices of the image and of the style image, and M and M' are their
    numbers of positions. The two images may have different sizes. If M = M', the loss is ``E_l`` of
    Gatys, Ecker & Bethge 2016, equation 4.

    Args:
        layer: layer of the feature maps.
        target: feature maps of the style image, 1×C×h×w.

    >>> maps = torch.rand(1, 4, 5, 5)
    >>> mirrored = View(torch.rand(1, 3, 7, 7), maps={"conv": maps.flip(3)})
    >>> bool(style("conv", maps).score(mirrored).abs() < 1e-6)  # positions do not matter
    True
    """
    target_gram = gram(target) / target[0, 0].numel()

    def minus_loss(view: View) -> Tensor:
        maps = view.maps[layer]
        difference = gram(maps) / maps[0, 0].numel() - target_gram
        return -difference.square().flatten(1).sum(dim=1) / (4 * maps.shape[1] ** 2)

    return Objective(minus_loss, (layer,))


def l2(centre: float | Tensor = 0.5) -> Objective:
    """Objective ``‖x − centre‖²``: a sum over pixels and channels. `centre` broadcasts with x."""
    return Objective(lambda view: (view.image - centre).square().flatten(1).sum(dim=1))


def tv() -> Objective:
    """Objective: total variation, the sum of ``|x_ij − x_i+1,j| + |x_ij − x_i,j+1|``.

    The sum runs over pixels and channels.
    """

    def variation(view: View) -> Tensor:
        steps = (view.image.diff(dim=axis).abs().flatten(1).sum(dim=1) for axis in (-2, -1))
        return sum(steps, torch.zeros((), device=view.image.device))

    return Objective(variation)


def code_distance(mean: float | Tensor = 0.0) -> Objective:
    """Objective ``‖z − z̄‖²`` of a decoder's code z, N×d: the prior of Nguyen et al. 2016."""
    return Objective(lambda view: (view.parameters[0] - mean).square().flatten(1).sum(dim=1))


def log_prior(images: Tensor) -> Objective:
    """Objective ``log p(x)`` of a Gaussian with the mean and power spectrum of `images`.

        log p(x) = −½ Σ_f (X_f − X̄_f)ᴴ S_f⁻¹ (X_f − X̄_f) + constant

    X is the Fourier transform of x, and S_f the C×C covariance of the colours at frequency f.
    Frequencies with the same rounded ``|f|`` share one S_f, and a little white noise keeps S_f
    invertible. The constant is left out. The Gaussian is the same at each position of the image, so
    it describes smoothness and colours, but not objects.

    Args:
        images: real images, M×C×H×W in [0, 1]. The image x must have the same size H×W.
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

    def log_p(view: View) -> Tensor:
        x = torch.fft.fft2(view.image - mean, norm="ortho")
        return -0.5 * torch.einsum("nahw,hwab,nbhw->n", x.conj(), inverse, x).real

    return Objective(log_p)


# --- Parametrisations -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Parametrisation:
    """Parameters θ that are optimised, and the image x(θ).

    Attributes:
        parameters: leaf tensors θ.
        image: computes the image x(θ), N×C×H×W in [0, 1].
        project: moves θ back to its allowed values, after each step.
        editable: whether θ is the image itself, so that edits can be applied to it.
    """

    parameters: list[Tensor]
    image: Callable[[], Tensor]
    project: Callable[[], Any] = lambda: None
    editable: bool = False


def pixels(start: Tensor) -> Parametrisation:
    """Pixels as parameters: ``x = θ``, clipped to [0, 1] after each step.

    Args:
        start: initial image, N×C×H×W in [0, 1].
    """
    x = check_images(start).detach().clone().requires_grad_()
    return Parametrisation([x], lambda: x, lambda: x.clamp_(0, 1), editable=True)


# The columns are the directions in which the colours of natural images vary. The matrix is a square
# root of the covariance of the colours in every fifth scene of Emoji COCO, scaled so that the
# longest column has length 1.
COLOURS = torch.tensor([[0.57, 0.38, 0.05], [0.60, -0.10, -0.17], [0.56, -0.28, 0.13]])


def fourier(start: Tensor, *, decay: float = 1.0, colours: Tensor | None = None) -> Parametrisation:
    """Fourier coefficients as parameters: ``x = sigmoid(C · F⁻¹(θ / f^decay))``.

    In natural images the amplitudes fall as 1/f and the colour channels are correlated. The factor
    ``1 / f^decay`` and the matrix C of colours give x these properties, so that equal steps in all
    coefficients θ change x as natural images vary (preconditioning). The sigmoid keeps x inside
    (0, 1). Olah, Mordvintsev & Schubert 2017.

    Args:
        start: initial image, N×C×H×W in [0, 1].
        decay: exponent of the frequency f.
        colours: matrix C, with one direction of colour in each column; by default `COLOURS` for
            three channels and the identity for other numbers of channels.

    >>> x = torch.rand(1, 3, 8, 8)
    >>> torch.allclose(fourier(x).image(), x, atol=1e-3)
    True
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
    """Code z of a decoder as parameters: ``x = g(z)``. Nguyen et al. 2016.

    Args:
        decoder: g, from codes N×d to images N×C×H×W in [0, 1]. Its weights are not changed.
        start: initial codes, N×d.
    """
    z = start.detach().clone().requires_grad_()
    return Parametrisation([z], lambda: decoder(z))


def _frequencies(height: int, width: int, *, full: bool = False) -> Tensor:
    """``|f|`` in cycles per pixel for each coefficient of `rfft2`, or of `fft2` if `full`."""
    across = torch.fft.fftfreq(width) if full else torch.fft.rfftfreq(width)
    return torch.hypot(torch.fft.fftfreq(height)[:, None], across[None])


# --- Transforms and edits -------------------------------------------------------------------------


def jitter(max_shift: int) -> Transform:
    """Transform that shifts the image by up to `max_shift` pixels along each axis.

    Pixels that leave the image at one border return at the opposite border. Mahendran & Vedaldi
    2015.

    >>> shifted = jitter(2)(torch.eye(6).view(1, 1, 6, 6), torch.Generator().manual_seed(0))
    >>> shifted.sum()
    tensor(6.)
    """

    def roll(x: Tensor, generator: torch.Generator) -> Tensor:
        shifts = torch.randint(-max_shift, max_shift + 1, (2,), generator=generator).tolist()
        return x.roll(shifts, dims=(-2, -1))

    return roll


def wobble(degrees: float = 8.0, zoom: float = 0.1) -> Transform:
    """Transform that rotates and zooms the image about its centre.

    Pixels from outside the image are filled by reflection.

    Args:
        degrees: largest rotation to either side, in degrees.
        zoom: largest change of scale: the scale is between ``1 − zoom`` and ``1 + zoom``.
    """

    def rotate(x: Tensor, generator: torch.Generator) -> Tensor:
        u, v = (2 * torch.rand(2, generator=generator) - 1).tolist()
        return rotate_and_zoom(x, torch.tensor(u * degrees).deg2rad(), 1 + v * zoom)

    return rotate


def blur(sigma: float) -> Edit:
    """Edit that smooths the image with a Gaussian of `sigma` pixels and repeats border pixels."""
    reach = max(1, round(3 * sigma))
    gaussian = torch.exp(-0.5 * (torch.arange(-reach, reach + 1.0) / sigma) ** 2)
    gaussian = gaussian / gaussian.sum()

    def smooth(x: Tensor) -> Tensor:
        kernel = gaussian.to(x).expand(x.shape[1], 1, -1)
        padded = F.pad(x, (reach,) * 4, mode="replicate")
        rows = F.conv2d(padded, kernel[:, :, None], groups=x.shape[1])
        return F.conv2d(rows, kernel[..., None], groups=x.shape[1])

    return smooth


def clip_small_norms(percent: float, centre: float | Tensor = 0.5) -> Edit:
    """Edit that sets the pixels with a colour near `centre` to `centre`. Yosinski et al. 2015.

    Args:
        percent: percentage of the pixels that are set, from 0 to 100: those with the smallest norm
            ``‖x_p − centre‖`` over the channels.
        centre: colour, which must broadcast with the image.
    """

    def clip(x: Tensor) -> Tensor:
        norms = torch.linalg.vector_norm(x - centre, dim=1, keepdim=True)
        limit = norms.flatten(1).quantile(percent / 100, dim=1).view(-1, 1, 1, 1)
        return torch.where(norms < limit, torch.as_tensor(centre).to(x), x)

    return clip


def unit_mean(gradient: Tensor) -> Tensor:
    """Gradient of each image divided by its mean absolute value, N×…, as in deep dream."""
    size = gradient.abs().flatten(1).mean(dim=1)
    return gradient / size.clamp(min=1e-12).view(-1, *[1] * (gradient.ndim - 1))


# --- The loop -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Ascent:
    """Result of `ascend`.

    Attributes:
        image: image after the last step, N×C×H×W in [0, 1].
        trace: objective at each evaluation, evaluations×N, from the starting image on. SGD and
            Adam evaluate it once per step.
        seconds: time from the start of the ascent to the end of each evaluation.
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
    """Gradient ascent on an objective: the `Ascent`, with the final image and the objective values.

    The N images of a batch do not influence each other, unless the objective depends on all of
    them (`diversity`). An interrupt (the stop button of a notebook) returns the result so far.

    Args:
        model: N×C×H×W images in [0, 1] to N×K logits. Its state is restored afterwards.
        objective: J, which the ascent raises.
        start: an image N×C×H×W in [0, 1], which is optimised as `pixels`, or a parametrisation.
        steps: number of steps of the optimiser, at least 1.
        optimiser: function from the list of parameters to an optimiser: `sgd` (momentum 0.9),
            `adam`, `lbfgs`, or a ``functools.partial`` of any class in `torch.optim`.
        transforms: ``transform(image, generator)``, applied before each forward pass.
        edits: ``edit(image)``, applied after each step; only for `pixels`.
        rescale: function that is applied to each gradient, such as `unit_mean`.
        seed: seed of the transforms. PyTorch's global generator is not used.
        watch: called after each step with the number of the step, from 1, and the image.

    Raises:
        ValueError: `steps` is below 1, edits are given without pixels, a layer does not exist,
            or the objective is not N finite numbers.

    >>> model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Softplus(), nn.Flatten(), nn.Linear(144, 5))
    >>> result = ascend(model, logit(2) - 0.01 * l2(), noise(1, 3, 8, 8), steps=5)
    >>> result.trace.shape, bool(result.trace[-1] > result.trace[0])
    (torch.Size([5, 1]), True)
    """
    theta = start if isinstance(start, Parametrisation) else pixels(start)
    if steps < 1:
        raise ValueError(f"steps must be at least 1, got {steps}")
    if edits and not theta.editable:
        raise ValueError("edits work only on pixels: pass an image or pixels(…) as start")
    optimise = optimiser(theta.parameters)
    generator = torch.Generator().manual_seed(seed)
    trace: list[Tensor] = []
    seconds: list[float] = []
    began = time.perf_counter()

    def evaluate() -> float:
        """Set the gradients of θ and return the loss, for the optimiser."""
        image = theta.image()
        logits, maps = _forward(model, _transformed(image, transforms, generator), objective.layers)
        scores = objective.score(View(image, logits, maps, theta.parameters))
        _set_gradients(theta.parameters, -_check_scores(scores, len(image)).sum(), rescale)
        trace.append(scores.detach())
        seconds.append(time.perf_counter() - began)
        return -float(trace[-1].sum())

    with frozen(model):
        try:
            for step in range(1, steps + 1):
                optimise.step(evaluate)
                _edit(theta, edits)
                if watch:
                    watch(step, theta.image().detach().clone())
        except KeyboardInterrupt:
            if not trace:
                raise
    parameters = [parameter.detach() for parameter in theta.parameters]
    return Ascent(theta.image().detach().clone(), torch.stack(trace), seconds, parameters)


def _forward(
    model: nn.Module, x: Tensor, layers: Sequence[Layer]
) -> tuple[Tensor, dict[Layer, Tensor]]:
    """Logits of the images x, and the outputs of the layers."""
    names = {layer: find_layer(model, layer)[0] for layer in layers}
    with record(model, list(names.values())) as outputs:
        logits = model(x)
    return logits, {layer: outputs[name] for layer, name in names.items()}


def _transformed(x: Tensor, transforms: Sequence[Transform], generator: torch.Generator) -> Tensor:
    """Images after all transforms, one after the other."""
    for transform in transforms:
        x = transform(x, generator)
    return x


def _check_scores(scores: Tensor, n: int) -> Tensor:
    """Return the scores if they are n finite numbers; else raise ``ValueError``."""
    if scores.shape != (n,):
        raise ValueError(
            f"an objective must return one number for each of the {n} images, "
            f"got shape {tuple(scores.shape)}"
        )
    if not scores.isfinite().all():
        raise ValueError("the objective became NaN or infinite: take smaller steps")
    return scores


def _set_gradients(
    parameters: Sequence[Tensor], loss: Tensor, rescale: Callable[[Tensor], Tensor] | None
) -> None:
    """Store the gradient of the loss in each parameter, where optimisers read it."""
    gradients = torch.autograd.grad(loss, parameters)
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = rescale(gradient) if rescale else gradient


def _edit(theta: Parametrisation, edits: Sequence[Edit]) -> None:
    """Move θ back to its allowed values, and apply the edits to the image."""
    with torch.no_grad():
        theta.project()
        for edit in edits:
            theta.parameters[0].copy_(edit(theta.parameters[0]).clamp(0, 1))


def noise(*shape: int, mean: float = 0.5, std: float = 0.1, seed: int = 0) -> Tensor:
    """Image of Gaussian noise, clipped to [0, 1]. Equal arguments give equal images.

    Args:
        shape: shape of the image, for example 1, 3, 128, 128.
        mean, std: mean and standard deviation of the noise before clipping.
        seed: seed of the random numbers.
    """
    generator = torch.Generator().manual_seed(seed)
    return (mean + std * torch.randn(shape, generator=generator)).clamp(0, 1)


def maps_of(model: nn.Module, image: Tensor, *layers: Layer) -> dict[Layer, Tensor]:
    """Outputs of some layers for an image, N×C×H×W, without gradients.

    Args:
        model: any network. Its state is restored afterwards.
        image: N×C×H×W.
        layers: dotted names or modules.

    Returns:
        A dict from each layer, as given, to its output.

    Raises:
        ValueError: the image is not a finite float tensor N×C×H×W, or a layer does not exist.

    >>> maps_of(nn.Sequential(nn.Conv2d(3, 4, 3)), torch.rand(1, 3, 8, 8), "0")["0"].shape
    torch.Size([1, 4, 6, 6])
    """
    with frozen(model), torch.no_grad():
        return _forward(model, check_images(image), layers)[1]


# --- Deep dream -----------------------------------------------------------------------------------


def dream(
    model: nn.Module,
    objective: Objective,
    image: Tensor,
    *,
    octaves: int = 3,
    ratio: float = 1.4,
    steps: int = 10,
    lr: float = 0.01,
    max_shift: int = 16,
    seed: int = 0,
    watch: Callable[[int, Tensor], Any] | None = None,
) -> Tensor:
    """Deep dream: raise the objective on a photograph, from reduced copies up to the full size.

    Each octave is `ratio` times as large as the octave before. Its ascent starts from the
    photograph at this size plus the enlarged changes of the octave before. The patterns therefore
    appear at all scales, while the photograph stays sharp. Mordvintsev, Olah & Tyka 2015.

    Args:
        model: as in `ascend`.
        objective: usually `layer_norm` of a hidden layer.
        image: photograph, N×3×H×W in [0, 1].
        octaves: number of sizes, at least 1; the last size is that of the photograph.
        ratio: ratio of successive sizes, above 1.
        steps: number of steps in each octave.
        lr: mean absolute change of a value in one step.
        max_shift: largest shift of the `jitter`, in pixels.
        seed: seed of the jitter.
        watch: called after each octave with the octave's number, from 0, and the image at its size.

    Returns:
        The dream, N×3×H×W in [0, 1].

    Raises:
        ValueError: as in `ascend`, or `octaves` is below 1, or `ratio` is not above 1.

    >>> model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Softplus(), nn.Flatten())
    >>> dream(model, layer_norm("0"), noise(1, 3, 12, 16), octaves=2, steps=2).shape
    torch.Size([1, 3, 12, 16])
    """
    full = check_images(image).shape[-2:]
    if octaves < 1 or ratio <= 1:
        raise ValueError(f"octaves must be at least 1 and ratio above 1, got {octaves} and {ratio}")
    change = torch.zeros_like(image)
    for octave in range(octaves):
        scale = ratio ** (octave + 1 - octaves)
        size = [max(1, round(length * scale)) for length in full]
        base = F.interpolate(image, size, mode="bilinear", antialias=True)
        detail = F.interpolate(change, size, mode="bilinear", antialias=True)
        dreamt = ascend(
            model,
            objective,
            (base + detail).clamp(0, 1),
            steps=steps,
            optimiser=partial(torch.optim.SGD, lr=lr),
            transforms=[jitter(max_shift)],
            rescale=unit_mean,
            seed=seed + octave,
        ).image
        change = dreamt - base
        if watch:
            watch(octave, dreamt)
    return dreamt
