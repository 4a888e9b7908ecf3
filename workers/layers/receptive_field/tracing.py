"""A tensor that tracks, for each element, which box of input pixels it depends on.

`trace(pixels)` wraps a real input; everything that a network computes from it is wrapped too. Values are
computed as usual, so the network takes the same path as on real images, and each operator's rule derives the
boxes of its outputs from those of its inputs. An operator without a rule makes its outputs global and
inexact, and is logged.
"""

import logging
import math
import weakref
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only

from workers.layers.receptive_field.boxes import Boxes, union
from workers.layers.receptive_field.rules import Call, NoRule, rule_for

_logger = logging.getLogger(__name__)


class UntraceableWrite(RuntimeError):
    """A network writes data that depends on the input into a tensor where its boxes would be lost."""


@dataclass(eq=False)
class _Memory:
    """State shared by tensors that are views of one another."""

    views: "list[weakref.ref[TracedTensor]]" = field(default_factory=list)
    is_muddled: bool = False

    @property
    def is_shared(self) -> bool:
        """True while more than one live tensor uses this memory."""
        return sum(view() is not None for view in self.views) > 1


class TracedTensor(Tensor):
    """A tensor and the boxes of its elements."""

    plain: Tensor
    memory: _Memory
    _boxes: Boxes

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @staticmethod
    def __new__(cls, plain: Tensor, boxes: Boxes, memory: _Memory) -> "TracedTensor":
        made: TracedTensor = Tensor._make_wrapper_subclass(
            cls,
            plain.size(),
            strides=plain.stride(),
            storage_offset=plain.storage_offset(),
            dtype=plain.dtype,
            device=plain.device,
        )
        return made

    def __init__(self, plain: Tensor, boxes: Boxes, memory: _Memory) -> None:
        assert boxes.shape == tuple(plain.shape), f"boxes of {boxes.shape} for a tensor of {plain.shape}"
        self.plain = plain
        self._boxes = boxes
        self.memory = memory
        memory.views.append(weakref.ref(self))

    def __repr__(self, **_: Any) -> str:  # type: ignore[override]
        return f"TracedTensor({self.plain!r})"

    @property
    def boxes(self) -> Boxes:
        """Boxes of the elements, in the tensor's own shape."""
        return self._boxes.everything(self._boxes.shape) if self.memory.is_muddled else self._boxes

    def overwrite(self, boxes: Boxes) -> None:
        """Replaces the boxes after an in-place write.

        Tensors that view the same memory would need the update too; if it makes a difference they all become
        global and inexact.
        """
        if self.memory.is_shared and not self._boxes.equals(boxes):
            self.memory.is_muddled = True
        self._boxes = boxes

    def derived(self, plain: Tensor, boxes: Boxes) -> "TracedTensor":
        """A separate tensor with `plain`'s values and these boxes, for results computed outside the operators."""
        return TracedTensor(plain, boxes, _Memory())

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]  # torch's stub leaves out `cls`
        cls,
        func: Any,
        types: Iterable[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        return _apply(func, tuple(args), dict(kwargs or {}))


def trace(pixels: Tensor, *, narrow: bool = False) -> TracedTensor:
    """`pixels` (N,3,H,W) as a tensor in which every element depends on its own pixel.

    With `narrow`, boxes are the places of elements in the image, see `Boxes`.
    """
    return TracedTensor(pixels, Boxes.of_pixels(pixels.shape, narrow=narrow), _Memory())


def _apply(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    if torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), "CompositeImplicitAutograd"):
        result = func.decompose(*args, **kwargs)
        if result is not NotImplemented:
            return result
    schema = func._schema
    names = [argument.name for argument in schema.arguments]
    given = dict(zip(names, args, strict=False)) | kwargs
    arguments = {
        argument.name: given.get(argument.name, argument.default_value) for argument in schema.arguments
    }
    output = func(*_plain(args), **_plain(kwargs))
    outputs = [output] if isinstance(output, Tensor) else output
    written = [
        arguments[a.name] for a in schema.arguments if a.alias_info is not None and a.alias_info.is_write
    ]
    if written and not isinstance(output, Tensor):
        raise UntraceableWrite(f"expected an operator that writes to one tensor, got {func}")
    if not isinstance(outputs, list | tuple):
        return output

    shapes = tuple(tuple(tensor.shape) if tensor is not None else () for tensor in outputs)
    boxes = _boxes_of_outputs(Call(func=func, arguments=_boxed(arguments), shapes=shapes))
    if written:
        if not isinstance(written[0], TracedTensor):
            raise UntraceableWrite(
                f"expected writes into tensors made from the input, got {func} into another"
            )
        written[0].overwrite(boxes[0])
        return written[0]
    viewed = next((arguments[a.name] for a in schema.arguments if a.alias_info is not None), None)
    wrapped = [
        None
        if tensor is None
        else TracedTensor(tensor, box, viewed.memory if isinstance(viewed, TracedTensor) else _Memory())
        for tensor, box in zip(outputs, boxes, strict=True)
    ]
    return wrapped[0] if isinstance(output, Tensor) else type(output)(wrapped)


def _boxes_of_outputs(call: Call) -> list[Boxes]:
    parts = call.traced
    if not any(
        math.prod(shape) for shape in call.shapes
    ):  # such as the prefix tokens of a network that has none
        return [parts[0].nothing(shape) for shape in call.shapes]
    try:
        derived = rule_for(call)(call)
    except NoRule:
        if all(part.is_uniform for part in parts):
            # however an operator mixes its inputs, elements that all have the same box cannot get another one
            one = union([part.spread(()) for part in parts], ())
            return [one.spread(shape) for shape in call.shapes]
        _logger.warning("receptive_field.unknown_operator operator=%s", call.func)
        return [parts[0].everything(shape) for shape in call.shapes]
    if isinstance(derived, list):
        return derived
    # further outputs are statistics over elements that are not distinguished here
    return [derived if shape == derived.shape else derived.hull_of_all(shape) for shape in call.shapes]


def _plain(values: Any) -> Any:
    return tree_map_only(TracedTensor, lambda traced: traced.plain, values)


def _boxed(values: Any) -> Any:
    return tree_map_only(TracedTensor, lambda traced: traced.boxes, values)
