"""One mechanism for all explanations: run the network as it is, and change backward rules.

The deconvnet, guided backprop and LRP share one idea. The forward pass is the network's own. In the
backward pass, chosen operations (every ReLU, for example) turn the signal ``R`` at their output
into the signal at their input by a rule of the method instead of by their derivative:

    plain backprop      R_in = f'(z) · R            (the vector-Jacobian product, "vjp")
    deconvnet           R_in = max(R, 0)
    guided backprop     R_in = f'(z) · max(R, 0)

`BackwardRules` sees every operation that a model calls, as a module, function or tensor method, in
place or not, because PyTorch offers each call to the innermost `TorchFunctionMode`. No hook is set
and the model is not changed. The rule is looked up when the backward pass *runs*, so one forward
pass serves several methods (`one_forward`).

What is explained is the class score of a **target** (`score`). A target is a class index, a
`Contrast` of two classes ("why A rather than B"), or any `Weighted` sum of logits.
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

Layer = str | nn.Module
Classes = int | Sequence[int] | Tensor


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


# The operations that rules apply to, by the names under which PyTorch offers them. ``F.relu``,
# ``torch.relu`` and ``Tensor.relu_`` all have the same name here; ``nn.ReLU6`` calls ``hardtanh``.
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

# No rule reads the values that go into or come out of a ReLU. It is the most frequent operation and
# mostly works in place, so it gets no copies of its tensors even where others do.
_WITHOUT_VALUES = _names("relu")


# --- Backward rules -------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Operation:
    """One operation of the forward pass, as a backward rule sees it.

    Attributes:
        function: the PyTorch function. ``function(*args, **kwargs)`` repeats the call, for rules
            that need it with other numbers.
        inputs: the differentiable tensor arguments.
        output: the result. Inputs and output form a small graph, so that `vjp` gives exactly
            PyTorch's derivative.
        name: the name of the operation, see `operation_name`.
        family: a key of `FAMILIES`.
        args, kwargs: all arguments of the call.
        sources: the nearest operations of the families on all paths back from the inputs.
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
        """The true backward pass, ``signal · ∂output/∂input``, one tensor for each input."""
        return torch.autograd.grad(self.output, self.inputs, signal, retain_graph=True)


Rule = Callable[[Operation, Tensor], tuple[Tensor, ...]]


class BackwardRules(TorchFunctionMode):
    """Within the ``with`` block, let families of operations propagate backwards by rules.

    A family without a rule in `rules` propagates by its true derivative. The rules may be changed
    between two backward passes over one forward pass:

    >>> rules = BackwardRules("activation")
    >>> x = torch.tensor([-1.0, 2.0], requires_grad=True)
    >>> with rules:
    ...     y = x.relu().sum()
    >>> torch.autograd.grad(y, x, retain_graph=True)[0]
    tensor([0., 1.])
    >>> rules.rules = {"activation": lambda operation, signal: (signal.clamp(min=0),)}
    >>> torch.autograd.grad(y, x)[0]
    tensor([1., 1.])

    Args:
        families: keys of `FAMILIES`.
        record_values: keep the operations, with copies of their tensors that a later in-place
            operation does not overwrite. Rules that read values need it (LRP), rules that use only
            the derivative do not (deconvnet, guided backprop). By default it is true for all
            families but the activations.

    Attributes:
        rules: the rule of each family; may be changed at any time.
        count: how many operations the forward pass has called so far. If it is 0 after a forward
            pass, no rule can act.
        others: names of the differentiable operations that belong to none of the families.
        operations: the operations in the order of the calls, if `record_values`.
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
    """Put an operation into the outer graph, with a backward pass that looks up its rule."""

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
        # Everything that holds this tensor must see it change, as without the rules.
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
    """All tensors among the values, also inside lists and tuples, in their order."""
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from tensors_in(value)


def _nodes_behind(tensors: Sequence[Tensor], ends: Callable[[Any], bool]) -> Iterator[Any]:
    """Each node of the autograd graph behind the tensors, once; a path stops where it `ends`."""
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
    """The nearest operations of the families on all paths back from the tensors."""

    def known(node: Any) -> bool:
        return isinstance(getattr(node, "operation", None), Operation)

    return tuple(dict.fromkeys(n.operation for n in _nodes_behind(tensors, known) if known(n)))


def _custom_functions(tensor: Tensor) -> set[str]:
    """Names of the model's `torch.autograd.Function` classes, which PyTorch offers to no mode."""
    ours, every = _Propagation._backward_cls, torch.autograd.function.BackwardCFunction  # type: ignore[attr-defined]
    nodes = _nodes_behind([tensor], lambda node: False)
    own = (type(node) for node in nodes if isinstance(node, every) and not isinstance(node, ours))
    return {kind.__name__.removesuffix("Backward") for kind in own}


# --- The model and its layers ---------------------------------------------------------------------


@contextmanager
def frozen(model: nn.Module) -> Iterator[nn.Module]:
    """Evaluation mode and no parameter gradients inside the block; afterwards all is as before.

    Each module gets its mode back and each parameter its ``requires_grad``, also after an
    exception. Gradients are enabled inside, even under ``torch.no_grad()`` outside, because an
    explanation needs them: for the image, not for the parameters.
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
    """Record the outputs of layers while the block runs.

    The network continues with a clone, because an in-place ReLU after the layer would overwrite
    what is stored. If a layer is called more than once, its last output is kept.

    Args:
        model: any network.
        layers: modules or their dotted names.

    Yields:
        A dict from dotted name to output, filled when the model runs.

    Raises:
        ValueError: a layer does not exist or returns something else than one tensor.
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
    """The dotted name and the module of a layer, from either of them.

    Raises:
        ValueError: the model has no such layer; the message suggests the nearest names.
    """
    modules = dict(model.named_modules(remove_duplicate=False))  # a shared module has many names
    if isinstance(layer, nn.Module):
        for name, module in modules.items():
            if module is layer:
                return name, module
        raise ValueError(f"this {type(layer).__name__} is not a part of the model")
    if layer in modules and layer:
        return layer, modules[layer]
    inner = [name for name in modules if name.endswith("." + layer)]
    raise ValueError(
        f"the model has no layer {layer!r}: {nearest(layer, inner or filter(None, modules))}"
    )


# --- The target -----------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Contrast:
    """The target "why class A rather than class B", for any method that takes a class index.

        y = y_a - y_b                                     Contrast(a, b)
        y = y_a - Σ_{k≠a} α_k y_k                         Contrast(a)
            with α_k = exp(y_k) / Σ_{j≠a} exp(y_j)

    The second form asks "why A rather than all others", each weighted by its probability among
    them. Its gradient is that of the probability ``p_a`` divided by ``p_a (1 - p_a)``, because the
    weights ``α`` are treated as constants.

    Wang & Wang 2022, "'Why Not Other Classes?': Towards Class-Contrastive Back-Propagation
    Explanations".

    >>> logits = torch.tensor([[3.0, 1.0, 1.0]])
    >>> score(logits, Contrast(0, 1))
    tensor([2.])
    >>> score(logits, Contrast(0))
    tensor([2.])

    Attributes:
        a: the class to explain, one index for all images or N of them.
        b: the class to compare with, likewise; None for all others.
    """

    a: Classes
    b: Classes | None = None


@dataclass(frozen=True, eq=False)
class Weighted:
    """The target ``y = Σ_k w_k y_k``: any weighted sum of logits, for example a group of classes.

    >>> score(torch.tensor([[3.0, 1.0, 2.0]]), Weighted(torch.tensor([0.5, 0.5, 0.0])))
    tensor([2.])

    Attributes:
        weights: K numbers for all images, or N×K.
    """

    weights: Tensor


Target = Classes | Contrast | Weighted


def score(logits: Tensor, target: Target) -> Tensor:
    """The class score ``y`` of each image: N numbers from N×K logits, before any softmax.

    Args:
        logits: N×K.
        target: one class index for all images or N of them, a `Contrast`, or `Weighted` logits.

    Raises:
        ValueError: `logits` has another shape, or the target is not one of these or names a class
            that does not exist.
    """
    return _contributions(logits, target_weights(logits, target)).sum(dim=1)


def _contributions(logits: Tensor, weights: Tensor) -> Tensor:
    """``w_k y_k``, N×K. A logit without weight is left out, even if it is NaN or infinite."""
    return torch.where(weights != 0, weights * logits, 0)


def target_weights(logits: Tensor, target: Target) -> Tensor:
    """The weights ``w`` with which the logits enter the score ``y = Σ_k w_k y_k``: N×K, constant.

    Args and errors as for `score`.
    """
    n, classes = check_logits(logits).shape
    if isinstance(target, Weighted):
        weights = target.weights.detach().to(logits)
        if weights.ndim not in (1, 2) or not (
            weights.shape[-1] == classes and (weights.ndim == 1 or len(weights) in (1, n))
        ):
            raise ValueError(
                f"weights of a target must have shape K or N×K, here {classes} or {n}×{classes}, "
                f"got {tuple(weights.shape)}"
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
    """The class index of each of n images, from one for all or n of them.

    Raises:
        ValueError: the target is not one whole number or n of them.
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
    """The target of each of n images by itself, for methods that go through the images in a loop.

    Raises:
        ValueError: the target is not one for all images or n of them.
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
    """The same target with weights that do not depend on the image that enters the model.

    The weights of ``Contrast(a)`` come from the logits. A method that changes the images
    (occlusion, SmoothGrad, Shapley values, …) must take those of the unchanged images `x`, or it
    would measure the change of the weights too. That costs one forward pass. All other targets are
    returned as they are.
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
        raise ValueError(f"image {bad} of the batch holds NaN or infinite values")
    return x


def check_logits(logits: Tensor) -> Tensor:
    """Return `logits` if they have shape N×K.

    Raises:
        ValueError: they do not.
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
    """The result of `one_forward`.

    Attributes:
        x: the images, N×C×H×W, a copy that requires gradients.
        logits: N×K.
        target: the target, also if `one_forward` was given a function.
        weights: the target as weights of the logits, N×K, see `target_weights`.
        y: the score of each image's target, N numbers.
        maps: the output of the chosen layer, or `x` if no layer was chosen.
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
        """``∂y/∂t`` for each tensor t of `wrt`, with the rules by family.

        Args:
            wrt: tensors of the forward pass (default: the images).
            signal: what enters at the logits, N×K (default: `weights`, which gives ``∂y/∂t``).
            rules: the rule of a family, by the family's name.

        Raises:
            ValueError: a rule for a family that `one_forward` was not asked for.
        """
        known = self._rules.families if self._rules is not None else ()
        if unknown := rules.keys() - set(known):
            raise ValueError(
                f"the forward pass was not told that {', '.join(sorted(unknown))} will get rules: "
                f"name them in families= (there: {', '.join(known) or 'none'})"
            )
        if self._rules is not None:
            self._rules.rules = rules
        signal = self.weights if signal is None else signal
        return torch.autograd.grad(self.logits, wrt or (self.x,), signal, retain_graph=True)

    @property
    def contributions(self) -> Tensor:
        """What each logit contributes to the score, ``w_k y_k``, N×K: where relevance starts."""
        return _contributions(self.logits.detach(), self.weights)

    @property
    def operations(self) -> tuple[Operation, ...]:
        """The operations of the families in the order of the calls.

        Empty if rules for the activations alone were asked for.
        """
        return tuple(self._rules.operations) if self._rules is not None else ()

    @property
    def others(self) -> frozenset[str]:
        """Names of the differentiable operations that belong to none of the families.

        The model's own `torch.autograd.Function` classes are among them.
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
    """One forward pass for any number of backward passes, with the model frozen inside the block.

    >>> from torchvision.models import alexnet
    >>> from vislib.explain.gradients import deconvnet_rule, guided_rule
    >>> x = torch.rand(1, 3, 224, 224)
    >>> with one_forward(alexnet(), x, 3, families=["activation"]) as forward:
    ...     gradient, = forward.backward()
    ...     guided, = forward.backward(activation=guided_rule)
    >>> gradient.shape == guided.shape == x.shape
    True

    Args:
        model: N×C×H×W images to N×K logits.
        x: the images, N×C×H×W.
        target: see `score`, or a function that gives the target from the N×K logits.
        layer: a module or its dotted name; its output becomes `ForwardPass.maps`.
        families: keys of `FAMILIES`, for which `ForwardPass.backward` will be given rules.

    Raises:
        ValueError: images, logits, target or layer are not valid. Also if the model never calls an
            operation of the families: a "guided" map would then be the plain gradient.
    """
    with frozen(model):
        x = check_images(x).detach().clone().requires_grad_()
        rules = BackwardRules(*families) if families else None
        layers = [] if layer is None else [layer]
        with record(model, layers) as outputs, rules or nullcontext():
            # A clone, because a network may overwrite its input and `x` must stay a leaf.
            logits = check_logits(model(x.clone()))
        if layer is not None and not outputs:
            raise ValueError(f"the forward pass never calls layer {find_layer(model, layer)[0]!r}")
        if rules is not None and rules.count == 0:
            known = ", ".join(sorted(name for family in families for name in FAMILIES[family]))
            kind = "activations" if tuple(families) == ("activation",) else "operations"
            raise ValueError(
                f"{type(model).__name__} calls none of the {kind} that this method changes "
                f"({known}), so the method would silently give the plain gradient"
            )
        target = target(logits.detach()) if callable(target) else target
        weights = target_weights(logits, target)
        y = _contributions(logits, weights).sum(dim=1)
        yield ForwardPass(x, logits, target, weights, y, next(iter(outputs.values()), x), rules)
