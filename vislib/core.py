"""One mechanism for all explanations: run the net as it is, change how an operation answers
backwards.

A deconvnet, guided backprop and LRP are the same act. The forward pass is the net's own; on the way
back, chosen operations (every ReLU, say) answer the incoming signal ``R`` by a rule of the method
instead of by their derivative:

    plain backprop      R_in = f'(z) · R            (the vector-Jacobian product, "vjp")
    deconvnet           R_in = max(R, 0)
    guided backprop     R_in = f'(z) · max(R, 0)

`BackwardRules` sees every operation that a model calls, as module, function or tensor method, in
place or not, because PyTorch offers each call to the innermost `TorchFunctionMode`. No hook is set
and the model is not touched. The rule is looked up when the backward pass *runs*, so one forward
pass serves several methods (`one_forward`).
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

Target = int | Sequence[int] | Tensor
Layer = str | nn.Module

# The operations that rules speak of, by the names under which PyTorch offers them (``F.relu``,
# ``torch.relu``, ``Tensor.relu_`` and so on all end in the same name; ``nn.ReLU6`` calls
# ``hardtanh``).
FAMILIES: dict[str, frozenset[str]] = {
    "activation": frozenset(
        [
            "relu",
            "relu6",
            "hardtanh",
            "leaky_relu",
            "prelu",
            "rrelu",
            "elu",
            "celu",
            "selu",
            "gelu",
            "silu",
            "mish",
            "softplus",
            "hardswish",
            "hardsigmoid",
            "sigmoid",
            "tanh",
        ]
    ),
    "convolution": frozenset(
        [
            "conv1d",
            "conv2d",
            "conv3d",
            "conv_transpose1d",
            "conv_transpose2d",
            "conv_transpose3d",
        ]
    ),
    "dense": frozenset(["linear", "addmm", "matmul", "mm"]),
    "batch_norm": frozenset(["batch_norm"]),
    "sum": frozenset(["add", "sub", "subtract", "rsub", "__rsub__"]),
    "average": frozenset(
        [
            "avg_pool1d",
            "avg_pool2d",
            "avg_pool3d",
            "adaptive_avg_pool1d",
            "adaptive_avg_pool2d",
            "adaptive_avg_pool3d",
            "mean",
            "sum",
            "interpolate",
            "upsample",
        ]
    ),
    "scale": frozenset(["mul", "multiply", "div", "divide", "true_divide", "neg"]),
}


@dataclass(frozen=True, eq=False)
class Operation:
    """One operation of the forward pass, as a backward rule meets it.

    `inputs` are its differentiable tensor arguments and `output` its result, on a small graph of
    their own, so that `vjp` gives exactly PyTorch's derivative. ``function(*args, **kwargs)`` is
    the call itself, weights and all, for rules that repeat it with other numbers. `sources` are the
    operations of the families that `inputs` come from, directly or by way of others.
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
    """Within the ``with`` block, let the named families of operations answer backwards by rules.

    `families` are keys of `FAMILIES`. A family without a rule in `rules` answers with its true
    derivative, and `rules` may be changed between two backward passes over one forward pass:

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

    def __init__(self, *families: str) -> None:
        super().__init__()
        self.families = families
        self.rules: Mapping[str, Rule] = {}
        self.count = 0  # operations met so far: 0 after a forward pass means that no rule can act
        self.others: set[str] = set()  # names of differentiable operations outside the families
        # Rules of an activation need its derivative alone. Rules of other families read values
        # too, so they get copies that a later in-place operation does not overwrite.
        self.keep = families != ("activation",)
        self.operations: list[Operation] = []  # in the order of the calls, if `keep`
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
        if in_place and not args[0].requires_grad:  # a constant that becomes differentiable
            differentiable.insert(0, args[0])
        keep = self.keep and name != "relu"
        leaves = [a.detach().clone() if keep else a.detach() for a in differentiable]
        swap = {
            id(a): leaf.requires_grad_() for a, leaf in zip(differentiable, leaves, strict=True)
        }
        local = [swap.get(id(a), a) for a in args]
        kwargs = {key: swap.get(id(a), a) for key, a in kwargs.items()}
        call = tuple(local)
        if in_place and name == "relu":
            output = torch.relu(leaves[0])  # the usual case without the clone: it needs no input
        else:
            if in_place:
                local[0] = leaves[0].clone()  # what a derivative needs must not be overwritten
            output = func(*local, **kwargs)
        sources = _sources(differentiable) if self.keep else ()
        operation = Operation(func, tuple(leaves), output, name, family, call, kwargs, sources)
        if self.keep:
            self.operations.append(operation)
        return _Answer.apply(self, family, operation, in_place, *differentiable)


def operation_name(func: Callable[..., Any]) -> str:
    """Name of the operation that a call performs: ``relu`` for `F.relu` and `Tensor.relu_` alike.

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


def _behind(tensors: Sequence[Tensor], ends: Callable[[Any], bool]) -> Iterator[Any]:
    """Each node of the graph behind the tensors, once, and nothing behind a node that `ends`."""
    nodes: list[Any] = [tensor.grad_fn for tensor in tensors]
    seen: set[Any] = {None}
    while nodes:
        node = nodes.pop()
        if node in seen:
            continue
        seen.add(node)
        yield node
        if not ends(node):
            nodes += [before for before, _ in node.next_functions]


def _sources(tensors: Sequence[Tensor]) -> tuple[Operation, ...]:
    """The nearest operations of the families on all ways back from the tensors."""

    def known(node: Any) -> bool:
        return isinstance(getattr(node, "operation", None), Operation)

    return tuple(dict.fromkeys(n.operation for n in _behind(tensors, known) if known(n)))


def _own_functions(tensor: Tensor) -> set[str]:
    """Names of the `torch.autograd.Function` behind a tensor: PyTorch offers these to no mode."""
    ours, every = _Answer._backward_cls, torch.autograd.function.BackwardCFunction  # type: ignore[attr-defined]
    nodes = _behind([tensor], lambda node: False)
    own = (type(node) for node in nodes if isinstance(node, every) and not isinstance(node, ours))
    return {kind.__name__.removesuffix("Backward") for kind in own}


class _Answer(torch.autograd.Function):
    """Put an operation into the outer graph, with the backward pass that the rules say."""

    @staticmethod
    def forward(
        ctx: Any,
        rules: BackwardRules,
        family: str,
        operation: Operation,
        in_place: bool,
        *x: Tensor,
    ) -> Tensor:
        ctx.rules, ctx.family, ctx.operation = rules, family, operation
        if not in_place:
            output = operation.output.detach()
            return output.clone() if rules.keep and operation.name != "relu" else output
        ctx.mark_dirty(
            x[0]
        )  # whoever else holds this tensor must see it change, as in the real net
        return x[0].copy_(operation.output)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, signal: Tensor) -> tuple[Tensor | None, ...]:
        rule = ctx.rules.rules.get(ctx.family, Operation.vjp)
        return (None, None, None, None, *rule(ctx.operation, signal))


@contextmanager
def frozen(model: nn.Module) -> Iterator[nn.Module]:
    """Evaluation mode and no parameter gradients inside the block; afterwards all as it was.

    Each module's own mode and each parameter's own ``requires_grad`` come back, also after an
    exception. Gradients are enabled inside, even under ``torch.no_grad()`` outside: an explanation
    needs them, for the image rather than for the weights.
    """
    modes = {module: module.training for module in model.modules()}
    wanted = {parameter: parameter.requires_grad for parameter in model.parameters()}
    try:
        model.eval()
        for parameter in wanted:
            parameter.requires_grad_(False)
        with torch.inference_mode(False), torch.enable_grad():
            yield model
    finally:
        for module, training in modes.items():
            module.training = training
        for parameter, requires_grad in wanted.items():
            parameter.requires_grad_(requires_grad)


@contextmanager
def record(model: nn.Module, layers: Sequence[Layer]) -> Iterator[dict[str, Tensor]]:
    """Record what the layers give while the block runs: a dict from dotted name to output.

    The net goes on with a clone: an in-place ReLU after the layer would overwrite what is stored. A
    layer that is called more than once keeps its last output.
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

    found = [find_layer(model, layer) for layer in layers]
    handles = [module.register_forward_hook(keep(name)) for name, module in found]
    try:
        yield outputs
    finally:
        for handle in handles:
            handle.remove()


def find_layer(model: nn.Module, layer: Layer) -> tuple[str, nn.Module]:
    """A layer's dotted name and module, from either. ``ValueError`` names the nearest layers."""
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


def score(logits: Tensor, target: Target) -> Tensor:
    """The class score ``y_c`` of each image: N logits from N×K, before any softmax.

    `target` is one class for all images or N classes. ``ValueError`` says which class does not
    exist.
    """
    n, classes = check_logits(logits).shape
    chosen = check_target(target, n).to(logits.device)
    wrong = chosen[(chosen < 0) | (chosen >= classes)]
    if len(wrong):
        raise ValueError(
            f"target {int(wrong[0])} does not exist: "
            f"the model has {classes} classes, 0 to {classes - 1}"
        )
    return logits.gather(1, chosen[:, None])[:, 0]


def check_target(target: Target, n: int) -> Tensor:
    """The class of each of n images, from one for all or n; else ``ValueError``."""
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


def check_images(x: Tensor) -> Tensor:
    """Return `x` where it is a batch of images, N×C×H×W, float, finite; else ``ValueError``."""
    if not isinstance(x, Tensor) or x.ndim != 4 or not x.is_floating_point() or not x.numel():
        seen = f"{x.dtype} of shape {tuple(x.shape)}" if isinstance(x, Tensor) else type(x).__name__
        raise ValueError(
            f"x must be a float tensor of shape N×C×H×W (one image: image[None]), got {seen}"
        )
    if not x.isfinite().all():
        bad = (~x.isfinite()).flatten(1).any(1).nonzero()[0].item()
        raise ValueError(f"image {bad} of the batch holds NaN or infinite values")
    return x


def check_logits(logits: Tensor) -> Tensor:
    """Return `logits` where they are N×classes; else ``ValueError``."""
    if not isinstance(logits, Tensor) or logits.ndim != 2:
        seen = tuple(logits.shape) if isinstance(logits, Tensor) else f"a {type(logits).__name__}"
        raise ValueError(
            f"expected logits of shape N×classes, got {seen}: "
            "the methods explain nets that classify images"
        )
    return logits


@dataclass(frozen=True)
class ForwardPass:
    """What `one_forward` yields.

    The images `x`, the N×K `logits`, the score `y` of each image's target, the chosen layer's
    output `maps` (`x` itself where no layer was chosen), and `backward`.
    """

    x: Tensor
    logits: Tensor
    y: Tensor
    maps: Tensor
    _rules: BackwardRules | None

    def backward(
        self, *wrt: Tensor, signal: Tensor | None = None, **rules: Rule
    ) -> tuple[Tensor, ...]:
        """``∂y/∂t`` for each tensor of `wrt` (default: the image), under the rules by family.

        `signal` is what each image's score sends back, N numbers (default: ones).
        """
        known = self._rules.families if self._rules is not None else ()
        if unknown := rules.keys() - set(known):
            raise ValueError(
                f"the forward pass was not told that {', '.join(sorted(unknown))} will get rules: "
                f"name them in families= (there: {', '.join(known) or 'none'})"
            )
        if self._rules is not None:
            self._rules.rules = rules
        signal = torch.ones_like(self.y) if signal is None else signal
        return torch.autograd.grad(self.y, wrt or (self.x,), signal, retain_graph=True)

    @property
    def operations(self) -> tuple[Operation, ...]:
        """The operations of the families in the order of the calls.

        Empty where rules for the activations alone were asked for.
        """
        return tuple(self._rules.operations) if self._rules is not None else ()

    @property
    def others(self) -> frozenset[str]:
        """Names of the differentiable operations that are of none of the families.

        Those that a model brings itself, as `torch.autograd.Function`, are among them.
        """
        if self._rules is None:
            return frozenset()
        return frozenset(self._rules.others | _own_functions(self.y))


@contextmanager
def one_forward(
    model: nn.Module,
    x: Tensor,
    target: Target | Callable[[Tensor], Target],
    *,
    layer: Layer | None = None,
    families: Sequence[str] = (),
) -> Iterator[ForwardPass]:
    """One forward pass for any number of backward passes, with the model frozen meanwhile.

    `target` may be a function of the N×K logits. `layer`'s output becomes `ForwardPass.maps`;
    `families` are the operations for which `ForwardPass.backward` will be given rules:

    >>> from torchvision.models import alexnet
    >>> from vislib.explain.gradients import deconvnet_rule, guided_rule
    >>> x = torch.rand(1, 3, 224, 224)
    >>> with one_forward(alexnet(), x, 3, families=["activation"]) as forward:
    ...     gradient, = forward.backward()
    ...     guided, = forward.backward(activation=guided_rule)
    >>> gradient.shape == guided.shape == x.shape
    True

    ``ValueError`` where a rule could not act because the model never calls such an operation:
    a "guided" map that is the plain gradient in disguise would be worse than none.
    """
    with frozen(model):
        x = check_images(x).detach().clone().requires_grad_()
        rules = BackwardRules(*families) if families else None
        layers = [] if layer is None else [layer]
        with record(model, layers) as outputs, rules or nullcontext():
            logits = check_logits(model(x.clone()))  # a net may overwrite its input: not this leaf
        if layer is not None and not outputs:
            raise ValueError(f"the forward pass never calls layer {find_layer(model, layer)[0]!r}")
        if rules is not None and rules.count == 0:
            known = ", ".join(sorted(name for family in families for name in FAMILIES[family]))
            kind = "activations" if tuple(families) == ("activation",) else "operations"
            raise ValueError(
                f"{type(model).__name__} calls none of the {kind} that this method changes "
                f"({known}), so the method would silently give the plain gradient"
            )
        y = score(logits, target(logits.detach()) if callable(target) else target)
        yield ForwardPass(x, logits, y, next(iter(outputs.values()), x), rules)
