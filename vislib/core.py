"""Core of all explanations: an unchanged forward pass, then backward passes that follow rules.

The deconvnet, guided backprop and LRP share one idea. The forward pass of the network stays as it
is. In the backward pass, an operation ``f(z)`` (every ReLU, for example) receives the signal ``R``
at its output. A rule of the method computes the signal ``R_in`` at its input:

    plain backprop      R_in = f'(z) · R            (the vector-Jacobian product, "vjp")
    deconvnet           R_in = max(R, 0)
    guided backprop     R_in = f'(z) · max(R, 0)

`BackwardRules` sees every operation of a model: modules, functions and tensor methods, in place or
not. PyTorch passes each of these calls to the innermost `TorchFunctionMode`, so no hook is needed
and the model is not changed. The rule is looked up when the backward pass *runs*. Therefore one
forward pass serves several methods (`one_forward`).

All methods explain the class score of a **target** (`score`). A target is a class index, a
`Contrast` of two classes ("why A rather than B"), or any `Weighted` sum of logits.

References:
    Wang & Wang 2022, "'Why Not Other Classes?': Towards Class-Contrastive Back-Propagation
    Explanations".
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from vislib.errors import nearest

# Dotted name of a module of the model, or the module.
Layer = str | nn.Module
# One class index for all images, or N of them.
Classes = int | Sequence[int] | Tensor


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


# The operations that rules can apply to, by their PyTorch names. ``F.relu``, ``torch.relu`` and
# ``Tensor.relu_`` all have the same name here (`operation_name`); ``nn.ReLU6`` calls ``hardtanh``.
FAMILIES: dict[str, frozenset[str]] = {
    "activation": _names(
        "relu relu6 hardtanh leaky_relu prelu rrelu elu celu selu gelu silu mish softplus "
        "hardswish hardsigmoid sigmoid tanh"
    ),
    "convolution": _names(
        "conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d"
    ),
    "dense": _names("linear addmm matmul mm"),
    "batch_norm": _names("batch_norm"),
    "sum": _names("add sub subtract rsub __rsub__"),
    "average": _names(
        "avg_pool1d avg_pool2d avg_pool3d adaptive_avg_pool1d adaptive_avg_pool2d "
        "adaptive_avg_pool3d mean sum interpolate upsample"
    ),
    "scale": _names("mul multiply div divide true_divide neg"),
}

# No rule reads the input or output values of a ReLU. ReLU is the most frequent operation and mostly
# works in place, so its tensors are not copied even if those of other operations are.
_WITHOUT_VALUES = _names("relu")


# --- Backward rules -------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Operation:
    """One operation of the forward pass, as a backward rule sees it.

    Attributes:
        function: PyTorch function. ``function(*args, **kwargs)`` repeats the call, for rules that
            need the operation with other numbers.
        inputs: differentiable tensor arguments.
        output: result of the call. Inputs and output form a small separate graph, so that `vjp`
            gives exactly PyTorch's derivative.
        name: name of the operation, see `operation_name`.
        family: key of `FAMILIES`.
        args, kwargs: all arguments of the call.
        sources: nearest operations of the families on all paths back from the inputs.
    """

    function: Callable[..., Tensor]
    inputs: tuple[Tensor, ...]
    output: Tensor
    name: str = ""
    family: str = ""
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    sources: tuple[Operation, ...] = ()

    def vjp(self, signal: Tensor) -> tuple[Tensor, ...]:
        """True backward pass ``signal · ∂output/∂input``, one tensor for each of `inputs`."""
        return torch.autograd.grad(self.output, self.inputs, signal, retain_graph=True)


# Function of an operation and the signal at its output that returns the signals at its inputs.
Rule = Callable[[Operation, Tensor], tuple[Tensor, ...]]


class BackwardRules(TorchFunctionMode):
    """Context manager in which families of operations propagate backwards by rules.

    The forward pass runs inside the ``with`` block. A family without a rule in `rules` propagates
    by its true derivative. The rules may change between two backward passes over one forward pass.

    Args:
        families: keys of `FAMILIES`.
        record_values: whether to keep the operations, with copies of their tensors that a later
            in-place operation does not overwrite. Rules that read values need these (LRP). Rules
            that use only the derivative do not (deconvnet, guided backprop). Default: False if the
            activations are the only family, else True.

    Attributes:
        rules: rule of each family; may be changed at any time.
        count: number of differentiable operations of the families so far. If it is 0 after a
            forward pass, no rule can act.
        others: names of the differentiable operations that belong to none of the families.
        operations: operations of the families in the order of the calls; empty without
            `record_values`.

    >>> rules = BackwardRules("activation")
    >>> x = torch.tensor([-1.0, 2.0], requires_grad=True)
    >>> with rules:
    ...     y = x.relu().sum()
    >>> torch.autograd.grad(y, x, retain_graph=True)[0]
    tensor([0., 1.])
    >>> rules.rules = {"activation": lambda operation, signal: (signal.clamp(min=0),)}
    >>> torch.autograd.grad(y, x)[0]
    tensor([1., 1.])
    """

    def __init__(self, *families: str, record_values: bool | None = None) -> None:
        super().__init__()
        self.families = families
        self.record_values = families != ("activation",) if record_values is None else record_values
        self.rules: Mapping[str, Rule] = {}
        self.count = 0
        self.others: set[str] = set()
        self.operations: list[Operation] = []
        self._family_of = {name: family for family in families for name in FAMILIES[family]}

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        name = operation_name(func)
        family = self._family_of.get(name)
        if family is not None and "input" in kwargs:  # torch.relu(input=z)
            args = (kwargs.pop("input"), *args)
        tensors = [a for a in (*args, *kwargs.values()) if isinstance(a, Tensor)]
        differentiable = list({id(a): a for a in tensors if a.requires_grad}.values())
        if family is None or not differentiable or not torch.is_grad_enabled():
            result = func(*args, **kwargs)
            if family is None and any(t.requires_grad for t in tensors_in([result])):
                self.others.add(name)
            return result

        self.count += 1
        in_place = name != getattr(func, "__name__", "") or kwargs.get("inplace", False)
        # A constant becomes differentiable if a differentiable tensor is added to it in place.
        if in_place and not args[0].requires_grad:
            differentiable.insert(0, args[0])
        copies = self.record_values and name not in _WITHOUT_VALUES
        leaves = [a.detach().clone() if copies else a.detach() for a in differentiable]
        swap = {
            id(a): leaf.requires_grad_() for a, leaf in zip(differentiable, leaves, strict=True)
        }
        local = [swap.get(id(a), a) for a in args]
        kwargs = {key: swap.get(id(a), a) for key, a in kwargs.items()}
        call = tuple(local)
        if in_place and name == "relu":
            output = torch.relu(leaves[0])
        else:
            # The derivative may need the input, so an in-place operation works on a clone.
            if in_place:
                local[0] = leaves[0].clone()
            output = func(*local, **kwargs)
        sources = _sources(differentiable) if self.record_values else ()
        operation = Operation(func, tuple(leaves), output, name, family, call, kwargs, sources)
        if self.record_values:
            self.operations.append(operation)
        return _Propagation.apply(self, operation, in_place, copies, *differentiable)


class _Propagation(torch.autograd.Function):
    """Operation as a node of the outer graph, with a backward pass that looks up its rule."""

    @staticmethod
    def forward(
        ctx: Any,
        rules: BackwardRules,
        operation: Operation,
        in_place: bool,
        copies: bool,
        *x: Tensor,
    ) -> Tensor:
        ctx.rules, ctx.operation = rules, operation
        if not in_place:
            output = operation.output.detach()
            return output.clone() if copies else output
        # All other references to this tensor must see the change, as in a call without rules.
        ctx.mark_dirty(x[0])
        return x[0].copy_(operation.output)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, signal: Tensor) -> tuple[Tensor | None, ...]:
        rule = ctx.rules.rules.get(ctx.operation.family, Operation.vjp)
        return (None, None, None, None, *rule(ctx.operation, signal))


def operation_name(func: Callable[..., Any]) -> str:
    """Name of the operation that a call performs: ``relu`` for `F.relu` and for `Tensor.relu_`.

    Special methods such as ``__getitem__`` keep their underscores.
    """
    name = getattr(func, "__name__", "")
    return name if name.startswith("__") else name.removesuffix("_")


def tensors_in(values: Iterable[Any]) -> Iterator[Tensor]:
    """Yield all tensors among the values, also those inside lists and tuples, in their order."""
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from tensors_in(value)


def _nodes_behind(tensors: Sequence[Tensor], ends: Callable[[Any], bool]) -> Iterator[Any]:
    """Yield each autograd node behind the tensors once; a path stops at a node that `ends` it."""
    nodes: list[Any] = [tensor.grad_fn for tensor in tensors]
    visited: set[Any] = {None}
    while nodes:
        node = nodes.pop()
        if node in visited:
            continue
        visited.add(node)
        yield node
        if not ends(node):
            nodes += [before for before, _ in node.next_functions]


def _sources(tensors: Sequence[Tensor]) -> tuple[Operation, ...]:
    """Nearest operations of the families on all paths back from the tensors."""

    def known(node: Any) -> bool:
        return isinstance(getattr(node, "operation", None), Operation)

    return tuple(dict.fromkeys(n.operation for n in _nodes_behind(tensors, known) if known(n)))


def _custom_functions(tensor: Tensor) -> set[str]:
    """Names of the model's `torch.autograd.Function` classes, which PyTorch passes to no mode."""
    ours, every = _Propagation._backward_cls, torch.autograd.function.BackwardCFunction  # type: ignore[attr-defined]
    nodes = _nodes_behind([tensor], lambda node: False)
    own = (type(node) for node in nodes if isinstance(node, every) and not isinstance(node, ours))
    return {kind.__name__.removesuffix("Backward") for kind in own}


# --- Model and layers -----------------------------------------------------------------------------


@contextmanager
def frozen(model: nn.Module) -> Iterator[nn.Module]:
    """Context manager that puts a model into evaluation mode, without parameter gradients.

    Afterwards each module has its previous mode and each parameter its previous ``requires_grad``,
    also after an exception. Inside the block gradients are enabled, even if the caller uses
    ``torch.no_grad()``, because an explanation needs the gradient of the image.

    Args:
        model: any network.

    Yields:
        The model.

    >>> model = nn.Linear(2, 1)
    >>> with frozen(model):
    ...     model.training, model.weight.requires_grad
    (False, False)
    >>> model.training, model.weight.requires_grad
    (True, True)
    """
    modes = {module: module.training for module in model.modules()}
    flags = {parameter: parameter.requires_grad for parameter in model.parameters()}
    try:
        model.eval()
        for parameter in flags:
            parameter.requires_grad_(False)
        with torch.inference_mode(False), torch.enable_grad():
            yield model
    finally:
        for module, training in modes.items():
            module.training = training
        for parameter, requires_grad in flags.items():
            parameter.requires_grad_(requires_grad)


@contextmanager
def record(model: nn.Module, layers: Sequence[Layer]) -> Iterator[dict[str, Tensor]]:
    """Context manager that records the outputs of layers.

    The network continues with a clone of each output, because an in-place ReLU after the layer
    would overwrite the recorded values. If a layer is called more than once, its last output is
    kept.

    Args:
        model: any network.
        layers: modules or their dotted names.

    Yields:
        A dict from dotted name to output, filled when the model runs.

    Raises:
        ValueError: a layer does not exist, or does not return one tensor.

    >>> model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True))
    >>> with record(model, ["0"]) as outputs:
    ...     _ = model(torch.rand(1, 3, 8, 8))
    >>> outputs["0"].shape, bool((outputs["0"] < 0).any())
    (torch.Size([1, 4, 6, 6]), True)
    """
    outputs: dict[str, Tensor] = {}

    def keep(name: str) -> Callable[..., Tensor]:
        def hook(module: nn.Module, args: Any, output: Any) -> Tensor:
            if not isinstance(output, Tensor):
                raise ValueError(
                    f"layer {name!r} returns a {type(output).__name__}, not one tensor: "
                    "choose a layer inside it"
                )
            outputs[name] = output
            return output.clone()

        return hook

    named = [find_layer(model, layer) for layer in layers]
    handles = [module.register_forward_hook(keep(name)) for name, module in named]
    try:
        yield outputs
    finally:
        for handle in handles:
            handle.remove()


def find_layer(model: nn.Module, layer: Layer) -> tuple[str, nn.Module]:
    """Dotted name and module of a layer.

    Args:
        model: any network.
        layer: the dotted name or the module.

    Raises:
        ValueError: the model has no such layer; the message suggests the nearest names.
    """
    modules = dict(model.named_modules(remove_duplicate=False))  # a shared module has many names
    if isinstance(layer, nn.Module):
        for name, module in modules.items():
            if module is layer:
                return name, module
        raise ValueError(
            f"layer must be a module of the model, got another {type(layer).__name__}: pass its "
            "dotted name, or the module of this copy of the model"
        )
    if layer in modules and layer:
        return layer, modules[layer]
    inner = [name for name in modules if name.endswith("." + layer)]
    raise ValueError(
        f"the model has no layer {layer!r}: {nearest(layer, inner or filter(None, modules))}"
    )


# --- Targets --------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Contrast:
    """Target "why class A rather than class B", for any method that takes a class index.

        y = y_a - y_b                                     Contrast(a, b)
        y = y_a - Σ_{k≠a} α_k y_k                         Contrast(a)
            with α_k = exp(y_k) / Σ_{j≠a} exp(y_j)

    Wang & Wang 2022. The second form asks "why A rather than all others", where each other class
    is weighted by its probability among the others. The weights ``α`` are treated as constants.
    The gradient of y is therefore the gradient of the probability ``p_a``, divided by
    ``p_a (1 - p_a)``.

    Attributes:
        a: class to explain, one index for all images or N of them.
        b: class to compare with, one index or N of them; None for all other classes.

    >>> logits = torch.tensor([[3.0, 1.0, 1.0]])
    >>> score(logits, Contrast(0, 1))
    tensor([2.])
    >>> score(logits, Contrast(0))
    tensor([2.])
    """

    a: Classes
    b: Classes | None = None


@dataclass(frozen=True, eq=False)
class Weighted:
    """Target ``y = Σ_k w_k y_k``: any weighted sum of logits, for example a group of classes.

    Attributes:
        weights: K numbers for all images, or N×K.

    >>> score(torch.tensor([[3.0, 1.0, 2.0]]), Weighted(torch.tensor([0.5, 0.5, 0.0])))
    tensor([2.])
    """

    weights: Tensor


Target = Classes | Contrast | Weighted


def score(logits: Tensor, target: Target) -> Tensor:
    """Class score ``y`` of each image: N numbers from N×K logits, before any softmax.

    Args:
        logits: N×K.
        target: one class index for all images or N of them, a `Contrast`, or `Weighted` logits.

    Raises:
        ValueError: `logits` is not N×K, `target` has another type or shape, or a class does not
            exist.

    >>> score(torch.tensor([[3.0, 1.0, 2.0], [0.0, 4.0, 5.0]]), [0, 2])
    tensor([3., 5.])
    """
    return _contributions(logits, target_weights(logits, target)).sum(dim=1)


def _contributions(logits: Tensor, weights: Tensor) -> Tensor:
    """``w_k y_k``, N×K. A logit of weight 0 contributes 0, even if it is NaN or infinite."""
    return torch.where(weights != 0, weights * logits, 0)


def target_weights(logits: Tensor, target: Target) -> Tensor:
    """Weights ``w`` of the logits in the score ``y = Σ_k w_k y_k``: N×K, without a graph.

    Args:
        logits, target: as in `score`.

    Raises:
        ValueError: as in `score`.
    """
    n, classes = check_logits(logits).shape
    if isinstance(target, Weighted):
        weights = target.weights.detach().to(logits)
        if weights.ndim not in (1, 2) or not (
            weights.shape[-1] == classes and (weights.ndim == 1 or len(weights) in (1, n))
        ):
            raise ValueError(
                f"weights of a target must have shape K or N×K, here ({classes},) or "
                f"({n}, {classes}), got {tuple(weights.shape)}"
            )
        return weights.expand(n, classes)
    if not isinstance(target, Contrast):
        return _one_hot(logits, target)
    a = _one_hot(logits, target.a)
    if target.b is not None:
        return a - _one_hot(logits, target.b)
    if classes < 2:
        raise ValueError("a contrast with all other classes needs at least 2 classes, got 1")
    return a - logits.detach().masked_fill(a > 0, -torch.inf).softmax(dim=1)


def _one_hot(logits: Tensor, target: Classes) -> Tensor:
    """N×K: 1 at the target class of each image, else 0."""
    n, classes = logits.shape
    chosen = check_target(target, n).to(logits.device)
    wrong = chosen[(chosen < 0) | (chosen >= classes)]
    if len(wrong):
        raise ValueError(
            f"target {int(wrong[0])} does not exist: "
            f"the model has {classes} classes, 0 to {classes - 1}"
        )
    return torch.zeros_like(logits).scatter(1, chosen[:, None], 1)


def check_target(target: Classes, n: int) -> Tensor:
    """Class index of each of n images, n int64 numbers.

    Args:
        target: one class index for all images, or n of them.
        n: number of images.

    Raises:
        ValueError: `target` is neither a whole number nor n of them.
    """
    try:
        chosen = torch.as_tensor(target)
        whole = not chosen.is_floating_point() and chosen.dtype != torch.bool
    except (TypeError, ValueError, RuntimeError):  # None, a class name, a ragged list
        whole = False
    if not whole:
        raise ValueError(f"target must be a class index or {n} of them, got {target!r}")
    chosen = chosen.expand(n) if chosen.ndim == 0 else chosen
    if chosen.shape != (n,):
        raise ValueError(f"{n} images need one target or {n}, got shape {tuple(chosen.shape)}")
    return chosen.long()


def split_target(target: Target, n: int) -> list[Target]:
    """Separate target of each of n images, for methods that loop over the images.

    Args:
        target: target of one image or of n images, see `score`.
        n: number of images.

    Returns:
        n targets, each for one image.

    Raises:
        ValueError: `target` is for another number of images.
    """
    if isinstance(target, Weighted):
        rows = target.weights if target.weights.ndim == 2 else target.weights[None]
        if len(rows) not in (1, n):
            raise ValueError(f"{n} images need weights for one target or {n}, got {len(rows)}")
        return [Weighted(row) for row in rows.expand(n, -1)]
    if isinstance(target, Contrast):
        a = check_target(target.a, n).tolist()
        b = [None] * n if target.b is None else check_target(target.b, n).tolist()
        return [Contrast(*pair) for pair in zip(a, b, strict=True)]
    return list(check_target(target, n).tolist())


def constant_target(model: nn.Module, x: Tensor, target: Target) -> Target:
    """Equivalent target whose weights do not depend on the images that enter the model.

    The weights of ``Contrast(a)`` come from the logits. A method that changes the images
    (occlusion, SmoothGrad, Shapley values, …) must use the weights for the unchanged images.
    Otherwise it would also measure the change of the weights. This costs one forward pass. All
    other targets are returned as they are.

    Args:
        model: N×C×H×W images to N×K logits.
        x: unchanged images, N×C×H×W.
        target: as in `score`.
    """
    if not isinstance(target, Contrast) or target.b is not None:
        return target
    with frozen(model), torch.no_grad():
        return Weighted(target_weights(model(check_images(x).clone()), target))


def check_images(x: Tensor) -> Tensor:
    """Return `x` if it is a batch of images.

    Raises:
        ValueError: `x` is not a float tensor N×C×H×W of finite numbers.
    """
    if not isinstance(x, Tensor) or x.ndim != 4 or not x.is_floating_point() or not x.numel():
        got = f"{x.dtype} of shape {tuple(x.shape)}" if isinstance(x, Tensor) else type(x).__name__
        raise ValueError(
            f"x must be a float tensor of shape N×C×H×W (one image: image[None]), got {got}"
        )
    if not x.isfinite().all():
        bad = (~x.isfinite()).flatten(1).any(1).nonzero()[0].item()
        raise ValueError(f"x must be finite, got NaN or infinite values in image {bad}")
    return x


def check_logits(logits: Tensor) -> Tensor:
    """Return `logits` if it is a tensor of shape N×K.

    Raises:
        ValueError: `logits` has another type or shape.
    """
    if not isinstance(logits, Tensor) or logits.ndim != 2:
        got = tuple(logits.shape) if isinstance(logits, Tensor) else f"a {type(logits).__name__}"
        raise ValueError(
            f"expected logits of shape N×classes, got {got}: "
            "the methods explain networks that classify images"
        )
    return logits


# --- One forward pass, many backward passes -------------------------------------------------------


@dataclass(frozen=True)
class ForwardPass:
    """Result of `one_forward`: the tensors of a forward pass, ready for backward passes.

    Attributes:
        x: images, N×C×H×W, a copy that requires gradients.
        logits: N×K.
        target: target of the images, also if `one_forward` was given a function.
        weights: target as weights of the logits, N×K, see `target_weights`.
        y: class score of each image, N numbers.
        maps: output of the chosen layer, or `x` if no layer was chosen.
    """

    x: Tensor
    logits: Tensor
    target: Target
    weights: Tensor
    y: Tensor
    maps: Tensor
    _rules: BackwardRules | None

    def backward(
        self, *wrt: Tensor, signal: Tensor | None = None, **rules: Rule
    ) -> tuple[Tensor, ...]:
        """``∂y/∂t`` for each tensor t of `wrt`, in its shape, with a rule for each family.

        Args:
            wrt: tensors of the forward pass (default: `x`).
            signal: signal that enters at the logits, N×K (default: `weights`, which gives
                ``∂y/∂t``).
            rules: rules by the names of their families. The other families propagate by their true
                derivatives.

        Raises:
            ValueError: a rule is for a family that was not passed to `one_forward`.
        """
        known = self._rules.families if self._rules is not None else ()
        if unknown := rules.keys() - set(known):
            raise ValueError(
                f"rules must be for families of this forward pass ({', '.join(known) or 'none'}), "
                f"got {', '.join(sorted(unknown))}: pass families= to one_forward"
            )
        if self._rules is not None:
            self._rules.rules = rules
        signal = self.weights if signal is None else signal
        return torch.autograd.grad(self.logits, wrt or (self.x,), signal, retain_graph=True)

    @property
    def contributions(self) -> Tensor:
        """Contributions ``w_k y_k`` of the logits to the score, N×K: the start of relevance."""
        return _contributions(self.logits.detach(), self.weights)

    @property
    def operations(self) -> tuple[Operation, ...]:
        """Operations of the families in the order of the calls.

        The tuple is empty if the activations are the only family.
        """
        return tuple(self._rules.operations) if self._rules is not None else ()

    @property
    def others(self) -> frozenset[str]:
        """Names of the differentiable operations that belong to none of the families.

        The `torch.autograd.Function` classes that the model defines are among them.
        """
        if self._rules is None:
            return frozenset()
        return frozenset(self._rules.others | _custom_functions(self.logits))


@contextmanager
def one_forward(
    model: nn.Module,
    x: Tensor,
    target: Target | Callable[[Tensor], Target],
    *,
    layer: Layer | None = None,
    families: Sequence[str] = (),
) -> Iterator[ForwardPass]:
    """Context manager that runs one forward pass for any number of backward passes.

    The model is `frozen` inside the block.

    Args:
        model: N×C×H×W images to N×K logits.
        x: images, N×C×H×W, float and finite.
        target: as in `score`, or a function that gives the target from the N×K logits.
        layer: module or its dotted name; its output becomes `ForwardPass.maps`.
        families: keys of `FAMILIES` that may get rules in `ForwardPass.backward`.

    Yields:
        The `ForwardPass`.

    Raises:
        ValueError: images, logits, target or layer are not valid, or the model calls no operation
            of the families. A "guided" map would then be the plain gradient.

    >>> from vislib.explain.gradients import guided_rule
    >>> model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 5))
    >>> x = torch.rand(2, 3, 8, 8)
    >>> with one_forward(model, x, 3, families=["activation"]) as forward:
    ...     gradient, = forward.backward()
    ...     guided, = forward.backward(activation=guided_rule)
    >>> gradient.shape == guided.shape == x.shape
    True
    """
    with frozen(model):
        x = check_images(x).detach().clone().requires_grad_()
        rules = BackwardRules(*families) if families else None
        layers = [] if layer is None else [layer]
        with record(model, layers) as outputs, rules or nullcontext():
            # A clone, because a network may overwrite its input and `x` must stay a leaf.
            logits = check_logits(model(x.clone()))
        if layer is not None and not outputs:
            raise ValueError(
                f"the forward pass never calls layer {find_layer(model, layer)[0]!r}: "
                "choose one that runs"
            )
        if rules is not None and rules.count == 0:
            known = ", ".join(sorted(name for family in families for name in FAMILIES[family]))
            kind = "activations" if tuple(families) == ("activation",) else "operations"
            raise ValueError(
                f"{type(model).__name__} calls none of the {kind} that this method changes "
                f"({known}), so the result would be the plain gradient"
            )
        target = target(logits.detach()) if callable(target) else target
        weights = target_weights(logits, target)
        y = _contributions(logits, weights).sum(dim=1)
        yield ForwardPass(x, logits, target, weights, y, next(iter(outputs.values()), x), rules)
