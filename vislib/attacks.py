"""Adversarial examples: small changes of an image that change the answer of a net.

Every attack here is the same loop. Step in the direction in which the objective grows fastest, and
project back to what is allowed: not further than ε from the image, and a picture, in [0, 1]:

    x ← project(x + step · direction(∂objective/∂x))

                    direction of a slope g     project a change δ
    norm "linf"     sign(g)                    each pixel to [−ε, ε]
    norm "l2"       g / ‖g‖₂                   shrink to ‖δ‖₂ = ε, if it is longer

Both directions are the steepest ones under their norm. `step_project` is the loop, for any
objective. `attack` gives it the loss of a class, ``−log p_target``, to be raised (or lowered, where
the target is an aim), and the named attacks are `attack` with some of its arguments fixed:

    fgsm    one step of size ε                         Goodfellow, Shlens & Szegedy 2015
    bim     many small steps                           Kurakin, Goodfellow & Bengio 2017
    pgd     the same from a random place within ε      Madry et al. 2018

Expectation over transformations (Athalye et al. 2018) is `attack` with a `transform`.

Images are N×C×H×W in [0, 1], ε is in the same unit (8/255 is eight grey levels). The norm is that
of each image. The promise on it is exact, in floating point too: `project` rounds towards x.
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
ROUNDING = 1e-5  # resizing may leave values such as 1.0000001


# --- The loop ------------------------------------------------------------------------------------


def step_project(
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
    """Raise ``objective(x)`` by steps that stay within `epsilon` of `x` and within [0, 1].

    Args:
        objective: N×C×H×W images to N numbers, differentiable; each depends on its own image.
        x: where to start, N×C×H×W in [0, 1]. (What rounding left just outside is clamped first.)
        epsilon: the largest change, in the norm, of each image.
        norm: ``"linf"`` (largest change of a value) or ``"l2"`` (Euclidean length).
        steps: how many.
        step_size: of each step, in the norm; by default ``2.5 · epsilon / steps``, which can reach
            every place and turn round (Madry et al. 2018).
        random_start: begin at a random place within `epsilon`.
        generator: for random numbers. By default one with seed 0; PyTorch's own is never used.

    Returns:
        The last images, as `x` is: N×C×H×W in [0, 1].

    Raises:
        ValueError: images outside [0, 1], a negative epsilon, an unknown norm, no steps, or an
            objective that is not finite.
    """
    size = _check(x, epsilon, norm, steps, step_size)
    generator = generator or torch.Generator().manual_seed(0)
    with torch.inference_mode(False), torch.enable_grad():
        x = x.detach().clamp(0, 1)
        y = x
        if random_start:
            y = project(x, x + _inside(x, epsilon, norm, generator), epsilon, norm)
        for _ in range(steps):
            leaf = y.detach().requires_grad_()
            values = objective(leaf.clone())  # a net may overwrite its input: not this leaf
            if not values.isfinite().all():
                raise ValueError(f"the objective is not finite: {values.detach().tolist()}")
            (slope,) = torch.autograd.grad(values.sum(), leaf)
            y = project(x, y + size * direction(slope, norm), epsilon, norm)
        return y


def direction(slope: Tensor, norm: str) -> Tensor:
    """The change of norm 1 that a linear function with this slope grows most by, N×C×H×W.

    ``"linf"``: the sign. ``"l2"``: the slope itself, divided by its length. A slope of zero stays.
    """
    if norm == "linf":
        return slope.sign()
    largest = slope.abs().amax(dim=(1, 2, 3), keepdim=True)
    slope = slope / torch.where(largest > 0, largest, 1)  # squares of tiny slopes would vanish
    length = _length(slope)
    return slope / torch.where(length > 0, length, 1)


def project(x: Tensor, y: Tensor, epsilon: float, norm: str = "linf") -> Tensor:
    """The image next to `y` that is within `epsilon` of `x`, and in [0, 1]: N×C×H×W.

    `x` itself must be in [0, 1], so that the clamp moves nothing away from it. The norm of the
    result minus `x`, in exact arithmetic, is at most `epsilon`.
    """
    change = y - x
    tiny = torch.finfo(x.dtype).eps
    if norm == "linf":
        bound = torch.tensor(epsilon, dtype=x.dtype)
        if float(bound) > epsilon:  # epsilon itself is no number of this type
            bound = torch.nextafter(bound, torch.zeros_like(bound))
        change = change.clamp(-float(bound), float(bound))
    else:
        # A length of n numbers may come out wrong by n roundings, and 4 follow in x's own type.
        length = _length(change.to("cpu", torch.float64))
        reach = epsilon * (1 - 4 * tiny - x[0].numel() * 2**-52)
        shrink = (reach / length.clamp(min=1e-300)).clamp(max=1)
        change = change * shrink.to(x)
    return _add_inwards(x, change).clamp(0, 1)


def _add_inwards(x: Tensor, change: Tensor) -> Tensor:
    """``x + change``, rounded towards x: no further away than `change` says.

    The rounding error of a sum is itself a floating-point number (Knuth 1969, "TwoSum"): where the
    sum was rounded away from x, take the number before it.
    """
    total = x + change
    moved = total - x
    error = (x - (total - moved)) + (change - moved)  # x + change = total + error, exactly
    too_far = error * change.sign() < 0
    return torch.where(too_far, torch.nextafter(total, x), total)


def _length(change: Tensor) -> Tensor:
    """The Euclidean length of each image, N×1×1×1."""
    return change.flatten(1).norm(dim=1).view(-1, 1, 1, 1)


def noise(
    x: Tensor, *, epsilon: float, norm: str = "linf", generator: torch.Generator | None = None
) -> Tensor:
    """The control: `x` plus random noise as large as an attack may be, N×C×H×W in [0, 1].

    ``"linf"``: +ε or −ε at each value, as FGSM. ``"l2"``: a random direction, of length ε. (Where
    the image is near black or white the clamp to [0, 1] takes some of it away.)
    """
    _check(x, epsilon, norm, 1, None)
    generator = generator or torch.Generator().manual_seed(0)
    x = x.detach().clamp(0, 1)
    change = direction(_normal(x, generator), norm) * epsilon
    return project(x, x + change, epsilon, norm)


def _normal(x: Tensor, generator: torch.Generator) -> Tensor:
    """Normal noise of x's shape. Drawn where the generator lives, so all devices get the same."""
    return torch.randn(x.shape, generator=generator, device=generator.device).to(x)


def _inside(x: Tensor, epsilon: float, norm: str, generator: torch.Generator) -> Tensor:
    """A random change within epsilon, all equally likely."""
    if norm == "linf":
        share = torch.rand(x.shape, generator=generator, device=generator.device).to(x)
        return epsilon * (2 * share - 1)
    radius = torch.rand(len(x), generator=generator, device=generator.device).to(x)
    radius = radius.view(-1, 1, 1, 1) ** (1 / x[0].numel())  # volume grows with radius to the n
    return epsilon * radius * direction(_normal(x, generator), "l2")


def _check(x: Tensor, epsilon: float, norm: str, steps: int, step_size: float | None) -> float:
    """Raise ``ValueError`` where the arguments make no sense; else the size of a step."""
    pixels = check_images(x).detach()
    low, high = float(pixels.min()), float(pixels.max())
    if low < -ROUNDING or high > 1 + ROUNDING:
        raise ValueError(
            f"x must be in [0, 1], its values run from {low:.6g} to {high:.6g}: attacks work on "
            "pixels, and the nets of vislib.nets normalise by themselves"
        )
    if norm not in NORMS:
        raise ValueError(f"there is no norm {norm!r}: {nearest(norm, NORMS)}")
    if not (epsilon >= 0 and math.isfinite(epsilon)):
        raise ValueError(f"epsilon must be a finite number, at least 0, got {epsilon}")
    if steps < 1:
        raise ValueError(f"an attack takes at least one step, got steps={steps}")
    size = 2.5 * epsilon / steps if step_size is None else step_size
    if not (size >= 0 and math.isfinite(size)):
        raise ValueError(f"step_size must be a finite number, at least 0, got {step_size}")
    return size


# --- Attacks on a class --------------------------------------------------------------------------


def attack(
    model: nn.Module,
    x: Tensor,
    target: Target,
    *,
    epsilon: float,
    norm: str = "linf",
    steps: int = 20,
    step_size: float | None = None,
    targeted: bool = False,
    random_start: bool = False,
    generator: torch.Generator | None = None,
    transform: Transform | None = None,
    samples: int = 1,
) -> Tensor:
    """Change `x` so that the net leaves the class `target`, or (`targeted`) reaches it.

    The objective is the loss ``−log p_target``, raised, or lowered where `targeted`.

    Args:
        model: N×C×H×W in [0, 1] → N×K logits (`vislib.nets` normalise inside).
        x: the images, N×C×H×W in [0, 1].
        target: one class or N: the true class, or the aim.
        epsilon: the largest change of each image, in the norm.
        norm: ``"linf"`` or ``"l2"``.
        steps: how many.
        step_size: of each, in the norm; by default ``2.5 · epsilon / steps``.
        targeted: whether `target` is the aim.
        random_start: begin at a random place within `epsilon`.
        generator: for random numbers; by default one with seed 0.
        transform: images and generator to randomly changed images, differentiable, such as
            `random_view`. The objective is then the mean over its results.
        samples: how many results of `transform` each step takes the mean of.

    Returns:
        The changed images, N×C×H×W in [0, 1], at most `epsilon` from `x`.

    Raises:
        ValueError: as `step_project`; a class that the model does not have; no samples.

    Szegedy et al. 2014, "Intriguing properties of neural networks"; Madry et al. 2018, "Towards
    Deep Learning Models Resistant to Adversarial Attacks"; for `transform` Athalye et al. 2018,
    "Synthesizing Robust Adversarial Examples".
    """
    if samples < 1:
        raise ValueError(f"the mean needs at least one sample, got samples={samples}")
    generator = generator or torch.Generator().manual_seed(0)
    sign = 1 if targeted else -1

    def objective(y: Tensor) -> Tensor:
        seen = [y] if transform is None else [transform(y, generator) for _ in range(samples)]
        logits = [check_logits(model(view)) for view in seen]
        return sign * torch.stack([score(z.log_softmax(1), target) for z in logits]).mean(0)

    with frozen(model):
        return step_project(
            objective,
            x,
            epsilon=epsilon,
            norm=norm,
            steps=steps,
            step_size=step_size,
            random_start=random_start,
            generator=generator,
        )


def fgsm(
    model: nn.Module,
    x: Tensor,
    target: Target,
    *,
    epsilon: float,
    norm: str = "linf",
    targeted: bool = False,
) -> Tensor:
    """Fast gradient sign method, one step: ``x + ε · sign(∂loss/∂x)``, clamped to [0, 1].

    With ``norm="l2"`` a step of length ε along the gradient. Arguments as for `attack`.
    Goodfellow, Shlens & Szegedy 2015, "Explaining and Harnessing Adversarial Examples".
    """
    return attack(
        model,
        x,
        target,
        epsilon=epsilon,
        norm=norm,
        steps=1,
        step_size=epsilon,
        targeted=targeted,
    )


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
    """Basic iterative method: many small steps of FGSM, each projected. Arguments as for `attack`.

    Kurakin, Goodfellow & Bengio 2017, "Adversarial Examples in the Physical World".
    """
    return attack(
        model,
        x,
        target,
        epsilon=epsilon,
        norm=norm,
        steps=steps,
        step_size=step_size,
        targeted=targeted,
    )


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
    """Projected gradient descent: `bim` from a random start. Arguments as for `attack`.

    Madry et al. 2018, "Towards Deep Learning Models Resistant to Adversarial Attacks".
    """
    return attack(
        model,
        x,
        target,
        epsilon=epsilon,
        norm=norm,
        steps=steps,
        step_size=step_size,
        targeted=targeted,
        random_start=True,
        generator=generator,
    )


# --- The physical world --------------------------------------------------------------------------


def random_view(
    x: Tensor,
    generator: torch.Generator,
    *,
    angle: float = 30,
    zoom: float = 1.25,
    light: float = 0.25,
) -> Tensor:
    """Each image as a camera might see it: turned, nearer or further, lighter or darker.

    Args:
        x: N×C×H×W in [0, 1].
        generator: for the random numbers; each image draws its own.
        angle: turned by up to so many degrees to either side.
        zoom: enlarged by a factor between 1/zoom and zoom. What lies outside is mirrored.
        light: multiplied by a factor between 1 − light and 1 + light, then clamped to [0, 1].

    Returns:
        N×C×H×W in [0, 1], differentiable with respect to x.
    """
    if zoom < 1:
        raise ValueError(f"zoom is the largest factor, at least 1, got {zoom}")
    draw = torch.rand(3, len(x), generator=generator, device=generator.device).to(x) * 2 - 1
    seen = rotate_and_zoom(x, draw[0] * math.radians(angle), zoom ** -draw[1])
    return (seen * (1 + light * draw[2]).view(-1, 1, 1, 1)).clamp(0, 1)


# --- An attack on an explanation -----------------------------------------------------------------


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
    """Change `x` so that Grad-CAM for `target` becomes like `goal`, and the answer stays.

    The objective is ``cos(Grad-CAM(x'), goal) − keep · KL(p(x) ‖ p(x'))``: the cosine is 1 where
    the map is a multiple of `goal`, and the divergence is 0 where all probabilities stay.

    Args:
        model, x, target: as for `attack`; `target` is the class whose map is moved.
        goal: the map that is wanted, N×1×h×w or 1×1×h×w, of any size, at least 0.
        epsilon, norm, steps, step_size: as for `attack`.
        layer: Grad-CAM's layer; by default the last convolutional stage.
        keep: how much a change of the answer counts against the attack.

    Ghorbani, Abid & Zou 2019, "Interpretation of Neural Networks is Fragile"; Dombrowski et al.
    2019, "Explanations Can Be Manipulated and Geometry Is to Blame". (Grad-CAM itself needs no
    second derivative of a ReLU: the maps move with the image, also where the weights do not.)
    """
    check_images(x)
    chosen = last_conv_stage(model, x) if layer is None else layer
    with frozen(model):
        with torch.no_grad():
            before = check_logits(model(x.clone())).log_softmax(1)

        def objective(y: Tensor) -> Tensor:
            with record(model, [chosen]) as outputs:
                logits = model(y)
            (maps,) = outputs.values()
            (slope,) = torch.autograd.grad(score(logits, target).sum(), maps, create_graph=True)
            # Grad-CAM without its last ReLU: a place below 0 must find its way up.
            seen = (slope.mean((2, 3), keepdim=True) * maps).sum(1, keepdim=True)
            wanted = F.interpolate(goal.to(seen), seen.shape[-2:], mode="area").expand_as(seen)
            alike = F.cosine_similarity(seen.flatten(1), wanted.flatten(1), eps=1e-12)
            after = logits.log_softmax(1)
            return alike - keep * F.kl_div(after, before, log_target=True, reduction="none").sum(1)

        return step_project(
            objective, x, epsilon=epsilon, norm=norm, steps=steps, step_size=step_size
        )
