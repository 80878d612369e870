"""Adversarial examples: small perturbations of an image that change the prediction of a network.

All attacks here repeat one step. They move the image in the direction in which the loss
``−log p_target`` grows fastest, and project the result back to the allowed images: at most ε from
the original image, with all values in [0, 1]:

    x ← project(x + α · direction(∂loss/∂x))

                    direction of a gradient g     projection of a perturbation δ
    norm "linf"     sign(g)                       clip each value to [−ε, ε]
    norm "l2"       g / ‖g‖₂                      scale to ‖δ‖₂ = ε, if it is longer

Both directions are those of steepest ascent under their norm. The attacks differ in the number of
steps and in the start:

    fgsm    one step of size ε                                Goodfellow, Shlens & Szegedy 2015
    bim     many small steps                                  Kurakin, Goodfellow & Bengio 2017
    pgd     many small steps from a random start within ε     Madry et al. 2018
    eot     many small steps that raise a mean loss over      Athalye et al. 2018
            random views of the image

A targeted attack lowers the loss of a target class instead. `projected_gradient_ascent` is the same
loop for any objective; `move_grad_cam` uses it to attack an explanation.

Images are N×C×H×W in [0, 1], and ε has the same unit (8/255 is eight grey levels). Norms are those
of single images. The bound ε holds in exact arithmetic, not only up to rounding (`project`).

Szegedy et al. 2014, "Intriguing properties of neural networks", describe the first such examples.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vislib.core import Layer, Target, check_images, check_logits, frozen, record, score
from vislib.errors import nearest
from vislib.layers import last_conv_stage
from vislib.transforms import rotate_and_zoom

Objective = Callable[[Tensor], Tensor]
Transform = Callable[[Tensor, torch.Generator], Tensor]
NORMS = ("linf", "l2")
# Resizing may give values such as 1.0000001.
ROUNDING = 1e-5


# --- FGSM, BIM and PGD ----------------------------------------------------------------------------


def fgsm(
    model: nn.Module,
    x: Tensor,
    target: Target,
    *,
    epsilon: float,
    norm: str = "linf",
    targeted: bool = False,
) -> Tensor:
    """Fast gradient sign method (FGSM): one step, ``x + ε · sign(∂loss/∂x)``, clipped to [0, 1].

    With ``norm="l2"`` the step has length ε and the direction of the gradient.
    Goodfellow, Shlens & Szegedy 2015, "Explaining and Harnessing Adversarial Examples".

    Args:
        model: N×C×H×W images in [0, 1] to N×K logits. (`vislib.nets` normalise inside.)
        x: images, N×C×H×W in [0, 1]. Values that are outside only by rounding are clipped.
        target: one class or N of them: the true class or, if `targeted`, the target class.
        epsilon: largest perturbation of each image, in the norm.
        norm: ``"linf"`` (largest change of a value) or ``"l2"`` (Euclidean length).
        targeted: whether to make `target` more likely instead of less likely.

    Returns:
        The attacked images, N×C×H×W in [0, 1], at most `epsilon` from `x`.

    Raises:
        ValueError: images are outside [0, 1], `epsilon` is negative or not finite, the norm is
            unknown, the model does not have the class, or the loss is not finite.

    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(12, 5))
    >>> x = torch.rand(2, 3, 2, 2)
    >>> attacked = fgsm(model, x, 3, epsilon=8 / 255)
    >>> bool((attacked - x).abs().max() <= 8 / 255)
    True
    >>> bool((model(attacked).log_softmax(1)[:, 3] < model(x).log_softmax(1)[:, 3]).all())
    True
    """
    sign = -1 if targeted else 1
    with frozen(model):
        x, _ = _prepare(x, epsilon, norm)
        gradient = _loss_gradient(model, x, target)
        return project(x, x + sign * epsilon * direction(gradient, norm), epsilon, norm)


def bim(
    model: nn.Module,
    x: Tensor,
    target: Target,
    *,
    epsilon: float,
    norm: str = "linf",
    steps: int = 20,
    step_size: float | None = None,
    targeted: bool = False,
) -> Tensor:
    """Basic iterative method (BIM): many small steps of `fgsm`, each followed by a projection.

        x_0 = x,    x_{t+1} = project(x_t + α · direction(∂loss/∂x_t))

    Kurakin, Goodfellow & Bengio 2017, "Adversarial Examples in the Physical World".

    Args:
        model, x, target, epsilon, norm, targeted: as in `fgsm`.
        steps: number of steps, at least 1.
        step_size: α, the size of a step in the norm; by default ``2.5 · epsilon / steps``, which
            is enough to reach every allowed image and to turn back (Madry et al. 2018).

    Returns:
        The attacked images, N×C×H×W in [0, 1], at most `epsilon` from `x`.

    Raises:
        ValueError: as in `fgsm`; or `steps` is below 1, or `step_size` is negative or not finite.

    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(12, 5))
    >>> x = torch.rand(2, 3, 2, 2)
    >>> attacked = bim(model, x, 3, epsilon=0.5, norm="l2", steps=10, targeted=True)
    >>> bool((model(attacked).log_softmax(1)[:, 3] > model(x).log_softmax(1)[:, 3]).all())
    True
    """
    sign = -1 if targeted else 1
    with frozen(model):
        x, step_size = _prepare(x, epsilon, norm, steps, step_size)
        y = x
        for _ in range(steps):
            gradient = _loss_gradient(model, y, target)
            y = project(x, y + sign * step_size * direction(gradient, norm), epsilon, norm)
    return y


def pgd(
    model: nn.Module,
    x: Tensor,
    target: Target,
    *,
    epsilon: float,
    norm: str = "linf",
    steps: int = 20,
    step_size: float | None = None,
    targeted: bool = False,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Projected gradient descent (PGD): the steps of `bim` from a random start within ε.

        x_0 = project(x + random perturbation)
        x_{t+1} = project(x_t + α · direction(∂loss/∂x_t))

    Madry et al. 2018, "Towards Deep Learning Models Resistant to Adversarial Attacks".

    Args:
        model, x, target, epsilon, norm, steps, step_size, targeted: as in `bim`.
        generator: source of the random start; by default a new one with seed 0. PyTorch's global
            generator is never used.

    Returns:
        The attacked images, N×C×H×W in [0, 1], at most `epsilon` from `x`.

    Raises:
        ValueError: as in `bim`.

    >>> model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 5))
    >>> x = torch.rand(2, 3, 8, 8)
    >>> attacked = pgd(model, x, [3, 0], epsilon=8 / 255)
    >>> bool((attacked - x).abs().max() <= 8 / 255)
    True
    """
    sign = -1 if targeted else 1
    generator = generator or torch.Generator().manual_seed(0)
    with frozen(model):
        x, step_size = _prepare(x, epsilon, norm, steps, step_size)
        y = _random_start(x, epsilon, norm, generator)
        for _ in range(steps):
            gradient = _loss_gradient(model, y, target)
            y = project(x, y + sign * step_size * direction(gradient, norm), epsilon, norm)
    return y


# --- The same loop for any objective --------------------------------------------------------------


def projected_gradient_ascent(
    objective: Objective,
    x: Tensor,
    *,
    epsilon: float,
    norm: str = "linf",
    steps: int = 20,
    step_size: float | None = None,
    random_start: bool = False,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Images near `x` with a larger ``objective(x)``: the loop of `pgd` for any objective.

    Args:
        objective: differentiable function from N×C×H×W images to N numbers, where each number
            depends only on its own image.
        x, epsilon, norm, steps, step_size: as in `bim`.
        random_start: whether to start at a random image within `epsilon` instead of at `x`.
        generator: as in `pgd`.

    Returns:
        The images after the last step, N×C×H×W in [0, 1], at most `epsilon` from `x`.

    Raises:
        ValueError: an argument is not valid, as in `bim`, or the objective is not finite.

    >>> x = torch.full((1, 3, 4, 4), 0.5)
    >>> brighter = projected_gradient_ascent(lambda y: y.sum((1, 2, 3)), x, epsilon=0.125)
    >>> bool((brighter == 0.625).all())
    True
    """
    generator = generator or torch.Generator().manual_seed(0)
    with torch.inference_mode(False), torch.enable_grad():
        x, step_size = _prepare(x, epsilon, norm, steps, step_size)
        y = _random_start(x, epsilon, norm, generator) if random_start else x
        for _ in range(steps):
            gradient = _gradient(objective, y)
            y = project(x, y + step_size * direction(gradient, norm), epsilon, norm)
    return y


# --- Expectation over transformations -------------------------------------------------------------


def eot(
    model: nn.Module,
    x: Tensor,
    target: Target,
    *,
    transform: Transform | None = None,
    samples: int = 1,
    epsilon: float,
    norm: str = "linf",
    steps: int = 20,
    step_size: float | None = None,
    targeted: bool = False,
    random_start: bool = False,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Expectation over transformations (EOT): raise the mean loss over random views of the image.

        maximise  E_t[ −log p_target(t(x + δ)) ]    over  ‖δ‖ ≤ ε

    Athalye et al. 2018, "Synthesizing Robust Adversarial Examples".

    Args:
        model, x, target, epsilon, norm, steps, step_size, targeted: as in `bim`.
        transform: ``transform(images, generator)`` returns differentiable random views, such as
            `random_view`; by default the unchanged images, which gives `bim`.
        samples: number of new transformations t in each step, at least 1.
        random_start: whether to start at a random image within `epsilon` instead of at `x`.
        generator: source of all random numbers; by default a new one with seed 0.

    Returns:
        The attacked images, N×C×H×W in [0, 1], at most `epsilon` from `x`.

    Raises:
        ValueError: as in `bim`, or `samples` is below 1.

    >>> model, x = nn.Sequential(nn.Flatten(), nn.Linear(192, 5)), torch.rand(2, 3, 8, 8)
    >>> attacked = eot(model, x, 3, transform=random_view, samples=4, epsilon=8 / 255, steps=5)
    >>> bool((attacked - x).abs().max() <= 8 / 255)
    True
    """
    if samples < 1:
        raise ValueError(f"samples must be at least 1, got {samples}")
    generator = generator or torch.Generator().manual_seed(0)

    def mean_loss(y: Tensor) -> Tensor:
        views = [y] if transform is None else [transform(y, generator) for _ in range(samples)]
        mean = torch.stack([_loss(model, view, target) for view in views]).mean(0)
        return -mean if targeted else mean

    with frozen(model):
        return projected_gradient_ascent(
            mean_loss,
            x,
            epsilon=epsilon,
            norm=norm,
            steps=steps,
            step_size=step_size,
            random_start=random_start,
            generator=generator,
        )


def random_view(
    x: Tensor,
    generator: torch.Generator,
    *,
    angle: float = 30,
    zoom: float = 1.25,
    light: float = 0.25,
) -> Tensor:
    """Random views of images: rotated, enlarged or reduced, brighter or darker, N×C×H×W.

    Args:
        x: N×C×H×W in [0, 1].
        generator: source of the random numbers; each image has its own view.
        angle: largest rotation to either side, in degrees.
        zoom: largest factor of enlargement and of reduction, at least 1. Pixels from outside the
            image are filled by reflection.
        light: largest relative change of brightness. Images are multiplied by a factor between
            ``1 − light`` and ``1 + light``, then clipped to [0, 1].

    Returns:
        The views, N×C×H×W in [0, 1], differentiable with respect to `x`.

    Raises:
        ValueError: `zoom` is below 1.

    >>> x = torch.full((2, 3, 8, 8), 0.5)  # rotation and zoom do not change a uniform image
    >>> views = random_view(x, torch.Generator().manual_seed(0), light=0.25)
    >>> bool(views.min() >= 0.374) and bool(views.max() <= 0.626)
    True
    """
    if zoom < 1:
        raise ValueError(f"zoom must be at least 1 (the largest factor), got {zoom}")
    draw = torch.rand(3, len(x), generator=generator, device=generator.device).to(x) * 2 - 1
    view = rotate_and_zoom(x, draw[0] * math.radians(angle), zoom ** -draw[1])
    return (view * (1 + light * draw[2]).view(-1, 1, 1, 1)).clamp(0, 1)


# --- An attack on an explanation ------------------------------------------------------------------


def move_grad_cam(
    model: nn.Module,
    x: Tensor,
    target: Target,
    goal: Tensor,
    *,
    epsilon: float,
    layer: Layer | None = None,
    norm: str = "linf",
    steps: int = 50,
    step_size: float | None = None,
    keep: float = 1.0,
) -> Tensor:
    """Images near `x` whose Grad-CAM map resembles `goal`, while the prediction stays.

        maximise  cos(Grad-CAM(x'), goal) − keep · KL(p(x) ‖ p(x'))    over  ‖x' − x‖ ≤ ε

    The cosine is 1 if the map is a multiple of `goal`; the divergence is 0 if no probability
    changes. The attack needs no second derivatives of ReLUs, because Grad-CAM's feature maps change
    with the image even where its channel weights do not.
    Ghorbani, Abid & Zou 2019, "Interpretation of Neural Networks is Fragile"; Dombrowski et al.
    2019, "Explanations Can Be Manipulated and Geometry Is to Blame".

    Args:
        model, x, epsilon, norm, steps, step_size: as in `bim`.
        target: one class or N classes whose maps are moved.
        goal: desired map, N×1×h×w or 1×1×h×w, of any size, at least 0.
        layer: layer of Grad-CAM; by default the last convolutional stage.
        keep: weight of the divergence, at least 0.

    Returns:
        The attacked images, N×C×H×W in [0, 1], at most `epsilon` from `x`.

    Raises:
        ValueError: as in `bim`, or the layer does not exist.

    >>> model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 5))
    >>> x = torch.rand(1, 3, 8, 8)
    >>> goal = F.pad(torch.ones(1, 1, 3, 3), (0, 3, 0, 3))  # the upper left corner
    >>> attacked = move_grad_cam(model, x, 3, goal, epsilon=8 / 255, layer="0", steps=5)
    >>> bool((attacked - x).abs().max() <= 8 / 255)
    True
    """
    check_images(x)
    layer = last_conv_stage(model, x) if layer is None else layer
    with frozen(model):
        with torch.no_grad():
            before = check_logits(model(x.clone())).log_softmax(1)

        def objective(y: Tensor) -> Tensor:
            cam, logits = _signed_grad_cam(model, y, target, layer)
            desired = F.interpolate(goal.to(cam), cam.shape[-2:], mode="area").expand_as(cam)
            cosine = F.cosine_similarity(cam.flatten(1), desired.flatten(1), eps=1e-12)
            after = logits.log_softmax(1)
            divergence = F.kl_div(after, before, log_target=True, reduction="none").sum(1)
            return cosine - keep * divergence

        return projected_gradient_ascent(
            objective, x, epsilon=epsilon, norm=norm, steps=steps, step_size=step_size
        )


def _signed_grad_cam(
    model: nn.Module, y: Tensor, target: Target, layer: Layer
) -> tuple[Tensor, Tensor]:
    """Grad-CAM without its ReLU, so that negative positions have a gradient, and the logits."""
    with record(model, [layer]) as outputs:
        logits = model(y)
    (maps,) = outputs.values()
    (gradient,) = torch.autograd.grad(score(logits, target).sum(), maps, create_graph=True)
    return (gradient.mean((2, 3), keepdim=True) * maps).sum(1, keepdim=True), logits


# --- The control ----------------------------------------------------------------------------------


def add_noise(
    x: Tensor, *, epsilon: float, norm: str = "linf", generator: torch.Generator | None = None
) -> Tensor:
    """Control for every attack: `x` plus a random perturbation of norm ε, clipped to [0, 1].

    Args:
        x, epsilon: as in `fgsm`.
        norm: ``"linf"`` adds +ε or −ε to each value, as FGSM does; ``"l2"`` adds a random vector
            of length ε. Clipping makes the perturbation smaller near black and white.
        generator: source of the noise; by default a new one with seed 0.

    Returns:
        The noisy images, N×C×H×W in [0, 1], at most `epsilon` from `x`.

    Raises:
        ValueError: `x`, `epsilon` or `norm` is not valid, as in `fgsm`.

    >>> noisy = add_noise(torch.full((1, 3, 4, 4), 0.5), epsilon=0.125)
    >>> sorted(set(noisy.flatten().tolist()))
    [0.375, 0.625]
    """
    x, _ = _prepare(x, epsilon, norm)
    generator = generator or torch.Generator().manual_seed(0)
    return project(x, x + direction(_normal(x, generator), norm) * epsilon, epsilon, norm)


# --- Direction and projection ---------------------------------------------------------------------


def direction(gradient: Tensor, norm: str) -> Tensor:
    """Perturbation of norm 1 along which a function with this gradient grows fastest.

    Args:
        gradient: N×C×H×W.
        norm: ``"linf"`` takes the sign; ``"l2"`` divides the gradient by its length.

    Returns:
        N×C×H×W; 0 where the gradient is 0 (``"linf"``) or if all of it is 0 (``"l2"``).

    >>> direction(torch.tensor([3.0, -4.0]).view(1, 1, 1, 2), "l2").flatten()
    tensor([ 0.6000, -0.8000])
    """
    if norm == "linf":
        return gradient.sign()
    # The gradient is scaled first, because the squares of very small values would become 0.
    largest = gradient.abs().amax(dim=(1, 2, 3), keepdim=True)
    gradient = gradient / torch.where(largest > 0, largest, 1)
    length = _length(gradient)
    return gradient / torch.where(length > 0, length, 1)


def project(x: Tensor, y: Tensor, epsilon: float, norm: str = "linf") -> Tensor:
    """Project the images `y` to those within `epsilon` of `x`, and clip them to [0, 1].

    With the perturbation ``δ = y − x`` the result is ``clip(x + δ', 0, 1)``, where

        "linf"    δ' = clip(δ, −ε, ε)            "l2"    δ' = δ · min(1, ε / ‖δ‖₂)

    The norm of the perturbation is at most `epsilon` in exact arithmetic, because all sums are
    rounded towards `x`.

    Args:
        x: original images, N×C×H×W in [0, 1], so that clipping never moves a value away from `x`.
        y: images to project, N×C×H×W.
        epsilon: largest norm of the perturbation of each image, at least 0.
        norm: ``"linf"`` or ``"l2"``.

    Returns:
        N×C×H×W in [0, 1].

    >>> x = torch.full((1, 1, 1, 2), 0.5)
    >>> project(x, x + torch.tensor([0.1, -0.4]), 0.25)
    tensor([[[[0.6000, 0.2500]]]])
    """
    perturbation = y - x
    radius = _inner_radius(x, epsilon, norm)
    if norm == "linf":
        perturbation = perturbation.clamp(-radius, radius)
    else:
        length = _length(perturbation.to("cpu", torch.float64)).clamp(min=1e-300)
        perturbation = perturbation * (radius / length).clamp(max=1).to(x)
    return _add_inwards(x, perturbation).clamp(0, 1)


def _length(perturbation: Tensor) -> Tensor:
    """Euclidean length of each image, N×1×1×1."""
    return perturbation.flatten(1).norm(dim=1).view(-1, 1, 1, 1)


# --- Exact bounds in floating point ---------------------------------------------------------------
#
# A computed sum x + δ is rounded, so it may be further from x than ε by half a unit in the last
# place. `project` keeps the bound exactly: `_inner_radius` reduces ε by the rounding errors of δ,
# and `_add_inwards` rounds the sum towards x.


def _inner_radius(x: Tensor, epsilon: float, norm: str) -> float:
    """ε, reduced so that the rounding errors of a perturbation in x's number type stay inside."""
    if norm == "linf":
        radius = torch.tensor(epsilon, dtype=x.dtype)
        if float(radius) > epsilon:  # ε itself is not a number of this type
            radius = torch.nextafter(radius, torch.zeros_like(radius))
        return float(radius)
    # The length of n numbers has up to n rounding errors in float64, and 4 in x's type follow.
    return epsilon * (1 - 4 * torch.finfo(x.dtype).eps - x[0].numel() * 2**-52)


def _add_inwards(x: Tensor, perturbation: Tensor) -> Tensor:
    """``x + perturbation``, rounded towards x.

    The rounding error of a sum is itself a floating-point number (Knuth 1969, "The Art of Computer
    Programming", volume 2: TwoSum). If the sum was rounded away from x, the next number towards x
    is taken.
    """
    total = x + perturbation
    moved = total - x
    error = (x - (total - moved)) + (perturbation - moved)  # x + perturbation = total + error
    too_far = error * perturbation.sign() < 0
    return torch.where(too_far, torch.nextafter(total, x), total)


# --- Parts of all attacks -------------------------------------------------------------------------


def _prepare(
    x: Tensor, epsilon: float, norm: str, steps: int = 1, step_size: float | None = None
) -> tuple[Tensor, float]:
    """Check the arguments; return the images, detached and clipped to [0, 1], and the step size."""
    pixels = check_images(x).detach()
    low, high = float(pixels.min()), float(pixels.max())
    if low < -ROUNDING or high > 1 + ROUNDING:
        raise ValueError(
            f"x must be in [0, 1], got values from {low:.6g} to {high:.6g}: pass images before any "
            "normalisation (the networks of vislib.nets normalise inside)"
        )
    if norm not in NORMS:
        raise ValueError(f"unknown norm {norm!r}: {nearest(norm, NORMS)}")
    if not (epsilon >= 0 and math.isfinite(epsilon)):
        raise ValueError(f"epsilon must be a finite number, at least 0, got {epsilon}")
    if steps < 1:
        raise ValueError(f"steps must be at least 1, got {steps}")
    size = 2.5 * epsilon / steps if step_size is None else step_size
    if not (size >= 0 and math.isfinite(size)):
        raise ValueError(f"step_size must be a finite number, at least 0, got {step_size}")
    return pixels.clamp(0, 1), size


def _loss(model: nn.Module, y: Tensor, target: Target) -> Tensor:
    """Loss ``−log p_target`` of each image: N numbers."""
    return -score(check_logits(model(y)).log_softmax(1), target)


def _loss_gradient(model: nn.Module, y: Tensor, target: Target) -> Tensor:
    """``∂loss/∂y``, N×C×H×W."""
    return _gradient(lambda images: _loss(model, images, target), y)


def _gradient(objective: Objective, y: Tensor) -> Tensor:
    """Gradient of each image's objective, N×C×H×W."""
    leaf = y.detach().requires_grad_()
    # A clone, because a model may overwrite its input.
    values = objective(leaf.clone())
    if not values.isfinite().all():
        raise ValueError(
            f"the objective must be finite, got {values.detach().tolist()}: check the model"
        )
    (gradient,) = torch.autograd.grad(values.sum(), leaf)
    return gradient


def _random_start(x: Tensor, epsilon: float, norm: str, generator: torch.Generator) -> Tensor:
    """Images drawn uniformly from the ball of radius ε around x, clipped to [0, 1]."""
    if norm == "linf":
        uniform = torch.rand(x.shape, generator=generator, device=generator.device).to(x)
        perturbation = epsilon * (2 * uniform - 1)
    else:
        # The volume of an n-dimensional ball is proportional to its radius to the power n.
        uniform = torch.rand(len(x), generator=generator, device=generator.device).to(x)
        radius = uniform.view(-1, 1, 1, 1) ** (1 / x[0].numel())
        perturbation = epsilon * radius * direction(_normal(x, generator), "l2")
    return project(x, x + perturbation, epsilon, norm)


def _normal(x: Tensor, generator: torch.Generator) -> Tensor:
    """Normal noise of x's shape, drawn on the generator's device: the same on every device."""
    return torch.randn(x.shape, generator=generator, device=generator.device).to(x)
