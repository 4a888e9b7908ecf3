"""Theoretical receptive fields against gradients, NaN propagation and the literature."""

import logging
from collections.abc import Callable, Iterator, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from workers.layers.receptive_field.fields import NoPathFromInput, ReceptiveField, field_of, receptive_fields
from workers.layers.receptive_field.recurrent import recurrent_rules
from workers.layers.receptive_field.tracing import UntraceableWrite, trace
from workers.layers.taps import as_nchw, find_taps
from workers.torchvision_import import import_torchvision


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    """Use one thread: with thousands of tiny operators, threads would spend their time waiting for one another."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class Vision(nn.Module):
    """The smallest thing that has taps: a network that takes pixels."""

    def __init__(self, network: nn.Module, size: int = 224) -> None:
        super().__init__()
        self.network = network.eval().requires_grad_(False)
        self.preprocessing: Any = SimpleNamespace(input_size=(size, size), channels=3)

    def forward(self, pixels: Tensor) -> Tensor:
        output = self.network(pixels)
        return output if isinstance(output, Tensor) else output.logits


class Function(nn.Module):
    """A function as a module."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def field_after(network: nn.Module, height: int = 24, width: int = 24) -> ReceptiveField:
    with torch.no_grad(), recurrent_rules(network):
        return field_of(network.eval().double()(trace(torch.rand(1, 3, height, width, dtype=torch.float64))))


# ---------------------------------------------------------------- the oracle: support of the gradient


def make_transparent(network: nn.Module) -> nn.Module:
    """Make weights positive and pool by averages, not maxima: no gradient cancels, is clipped or loses to a maximum."""
    generator = torch.Generator().manual_seed(0)

    def positive(shape: Any, low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(shape, generator=generator, dtype=torch.float64)

    network.double().eval()
    for name, parameter in network.named_parameters():
        fan_in = parameter[0].numel() if parameter.ndim > 1 else 1
        bounds = (0.01, 0.1) if name.endswith("bias") else (0.25 / fan_in, 0.75 / fan_in)
        parameter.data = positive(parameter.shape, *bounds)
    for name, buffer in network.named_buffers():
        if name.endswith("running_mean"):
            buffer.zero_()
    for module in network.modules():
        for name, child in module.named_children():
            if isinstance(child, nn.MaxPool2d):
                pool = nn.AvgPool2d(child.kernel_size, child.stride, child.padding, child.ceil_mode)
                setattr(module, name, pool)
    return network


def unlike_channels(output: Tensor) -> Tensor:
    """Sum N,C,H,W over channels with unequal weights: normalized channels would sum to a constant."""
    return torch.einsum("nchw,c->hw", output, torch.linspace(1, 2, output.shape[1], dtype=output.dtype))


def support(value: Tensor, pixels: Tensor, axis: int) -> tuple[int, int] | None:
    """Return the first and one past the last row (axis 0) or column (axis 1) with a nonzero gradient.

    None if there is no such pixel.
    """
    (gradient,) = torch.autograd.grad(value, pixels, retain_graph=True)
    lines = (gradient != 0).any(dim=0).any(dim=0).any(dim=1 - axis).nonzero().flatten()
    return (int(lines[0]), int(lines[-1]) + 1) if len(lines) else None


def interval(field: ReceptiveField, axis: int, position: int) -> tuple[float, float]:
    assert field.start is not None
    assert field.jump is not None
    assert field.size is not None
    start = field.start[axis] + field.jump[axis] * position
    return start, start + field.size[axis]


def assert_boxes_are_the_support(network: nn.Module, height: int = 24, width: int = 24) -> ReceptiveField:
    """Check that every unit's support lies in its box, and that exact boxes inside the input equal the support."""
    network = make_transparent(network)
    field = field_after(network, height, width)
    pixels = torch.rand(1, 3, height, width, dtype=torch.float64, requires_grad=True)
    output = unlike_channels(network(pixels))
    inside = 0
    for axis, extent in enumerate((height, width)):
        for position in range(output.shape[axis]):
            value = output.select(axis, position)[output.shape[1 - axis] // 2]
            found = support(value, pixels, axis)
            if field.is_global:
                assert found == (0, extent) or not field.exact
                continue
            low, high = interval(field, axis, position)
            # a unit may see only padding
            first, end = found or (low, high)
            assert low <= first
            assert end <= high
            if field.exact and low >= 0 and high <= extent:
                inside += 1
                assert (first, end) == (low, high)
    assert inside or field.is_global or not field.exact, "no unit's box lies inside the input: enlarge it"
    return field


# ---------------------------------------------------------------- single operators


def test_an_identity_layer_sees_one_pixel_at_stride_one() -> None:
    field = assert_boxes_are_the_support(nn.Identity(), 5, 4)
    assert field == ReceptiveField(is_global=False, size=(1, 1), jump=(1.0, 1.0), start=(0.0, 0.0))


def conv(kernel: int = 3, **options: Any) -> nn.Conv2d:
    return nn.Conv2d(3, 3, kernel, **options)


def squeeze_excite(x: Tensor) -> Tensor:
    return x * torch.sigmoid(x.mean((2, 3), keepdim=True))


def global_response_norm(x: Tensor) -> Tensor:
    x = x.permute(0, 2, 3, 1)
    norms = torch.linalg.vector_norm(x, dim=(1, 2), keepdim=True)
    return (x * norms / (norms.mean(-1, keepdim=True) + 1e-6) + x).permute(0, 3, 1, 2)


def attention(x: Tensor) -> Tensor:
    tokens = x.flatten(2).transpose(1, 2)
    mixed = F.scaled_dot_product_attention(tokens, tokens, tokens)
    return (tokens + mixed).transpose(1, 2).unflatten(2, x.shape[2:])


def attention_by_hand(x: Tensor) -> Tensor:
    tokens = x.flatten(2)
    weights = torch.softmax(tokens.transpose(1, 2) @ tokens, dim=-1)
    return torch.einsum("bck,bqk->bcq", tokens, weights).reshape(x.shape)


class MultiheadAttention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(3, 1, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.flatten(2).transpose(1, 2)
        return self.attention(tokens, tokens, tokens)[0].transpose(1, 2).unflatten(2, x.shape[2:])


class Scan(nn.Module):
    """A recurrent layer over the rows of a map, its columns, or all positions as tokens."""

    def __init__(
        self, kind: type[nn.RNNBase], over: str, *, batch_first: bool = True, **settings: Any
    ) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 2, stride=2)
        self.scan = kind(4, 3, batch_first=batch_first, **settings)
        self.over = over

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x).permute(0, 2, 3, 1)
        if self.over == "columns":
            x = x.transpose(1, 2)
        steps = x.flatten(1, 2) if self.over == "tokens" else x.flatten(0, 1)
        first = self.scan.batch_first
        seen = self.scan(steps if first else steps.transpose(0, 1))[0]
        seen = (seen if first else seen.transpose(0, 1)).reshape(*x.shape[:3], -1)
        return (seen.transpose(1, 2) if self.over == "columns" else seen).permute(0, 3, 1, 2)


EXACT: dict[str, Callable[[], nn.Module]] = {
    "convolution": lambda: conv(3, padding=1),
    "strided even kernel": lambda: conv(4, stride=2, padding=1),
    "dilated": lambda: conv(3, dilation=(2, 3), padding=(2, 3)),
    "oblong": lambda: nn.Conv2d(3, 3, (1, 5), stride=(2, 1), padding=(0, 2)),
    "depthwise": lambda: conv(5, groups=3, padding=2),
    "strided one by one": lambda: nn.Sequential(conv(1, stride=2), conv(3, padding=1)),
    "max pool": lambda: nn.Sequential(conv(3), nn.MaxPool2d(3, 2, 1)),
    "max pool with rounding up": lambda: nn.Sequential(conv(3), nn.MaxPool2d(3, 2, ceil_mode=True)),
    "average pool": lambda: nn.AvgPool2d(2, 2, count_include_pad=False),
    "even adaptive pool": lambda: nn.Sequential(nn.AdaptiveAvgPool2d(6), conv(3, padding=1)),
    "asymmetric padding": lambda: nn.Sequential(nn.ZeroPad2d((0, 1, 2, 3)), conv(3, stride=2)),
    "reflection": lambda: conv(3, padding=1, padding_mode="reflect"),
    "replication": lambda: conv(3, padding=1, padding_mode="replicate"),
    "crop": lambda: nn.Sequential(Function(lambda x: x[:, :, 1:-2, 3:]), conv(3)),
    "every second": lambda: nn.Sequential(Function(lambda x: x[:, :, 1::2, ::2]), conv(3, padding=1)),
    "batch norm": lambda: nn.Sequential(conv(3), nn.BatchNorm2d(3), nn.ReLU(inplace=True)),
    "channels last": lambda: Function(lambda x: F.layer_norm(x.permute(0, 2, 3, 1), (3,)).permute(0, 3, 1, 2)),
    "linear on channels": lambda: nn.Sequential(
        conv(3), Function(lambda x: x.permute(0, 2, 3, 1)), nn.Linear(3, 5), Function(lambda x: x.permute(0, 3, 1, 2))
    ),
    "tokens": lambda: nn.Sequential(
        conv(4, stride=4),
        Function(lambda x: torch.cat([torch.zeros(1, 1, 3).to(x), x.flatten(2).transpose(1, 2)], 1)),
        nn.LayerNorm(3),
        nn.Linear(3, 3),
        Function(lambda x: x[:, 1:].transpose(1, 2).unflatten(2, (6, 6))),
    ),
    "space to depth": lambda: nn.Sequential(nn.PixelUnshuffle(2), nn.Conv2d(12, 3, 3, padding=1)),
    "patches by reshape": lambda: Function(
        lambda x: x.reshape(1, 3, 6, 4, 6, 4).permute(0, 1, 3, 5, 2, 4).reshape(1, 48, 6, 6)
    ),
    "branches": lambda: Function(lambda x: torch.cat([F.avg_pool2d(x, 5, 1, 2), x, F.avg_pool2d(x, 3, 1, 1)], 1)),
    "stacked": lambda: Function(lambda x: torch.stack([F.avg_pool2d(x, 5, 1, 2), x], 2).flatten(1, 2)),
    "split": lambda: Function(lambda x: x + torch.cat(x.split(1, 1)[::-1], 1) + x.flip(1) + x.roll(1, 1)),
    "residual with shift": lambda: Function(lambda x: x[:, :, 2:, :-2] + F.avg_pool2d(x, 3, 1)),
    "gated": lambda: Function(lambda x: F.glu(torch.cat([x, F.avg_pool2d(x, 3, 1, 1)], 1), 1)),
    "unfolded": lambda: Function(lambda x: F.unfold(x, 3, padding=1, stride=2).unflatten(2, (12, 12))),
    "folded": lambda: Function(lambda x: F.fold(F.unfold(x, 3, padding=1), (24, 24), 3, padding=1)),
    "softmax over channels": lambda: Function(lambda x: (F.avg_pool2d(x, 3) * 9).softmax(1).cumsum(1).exp()),
}  # fmt: skip

GLOBAL: dict[str, Callable[[], nn.Module]] = {
    "squeeze and excitation": lambda: Function(squeeze_excite),
    "squeeze and excitation, channels last": lambda: Function(
        lambda x: x * F.adaptive_avg_pool2d(x.contiguous(memory_format=torch.channels_last), 1).sigmoid()
    ),
    "global response norm": lambda: Function(global_response_norm),
    "group norm": lambda: nn.GroupNorm(1, 3),
    "layer norm over space": lambda: nn.LayerNorm((3, 24, 24)),
    "attention": lambda: nn.Sequential(conv(4, stride=4), Function(attention)),
    "attention by hand": lambda: nn.Sequential(conv(4, stride=4), Function(attention_by_hand)),
    "attention module": lambda: nn.Sequential(conv(4, stride=4), MultiheadAttention()),
    "pool of strided rows": lambda: nn.Sequential(
        conv(2, stride=2), Function(lambda x: x + x.logsumexp((2, 3), keepdim=True))
    ),
    "softmax over space": lambda: Function(lambda x: x.flatten(2).softmax(-1).reshape(x.shape)),
    "convolution after pooling": lambda: nn.Sequential(Function(squeeze_excite), conv(3, stride=2, padding=1)),
    "fully connected": lambda: nn.Sequential(
        nn.Flatten(), nn.Linear(3 * 24 * 24, 8), Function(lambda x: x.reshape(1, 2, 2, 2))
    ),
}  # fmt: skip

HELD: dict[str, Callable[[], nn.Module]] = {
    "nearest upsampling": lambda: nn.Sequential(conv(3, stride=2, padding=1), nn.Upsample(scale_factor=2)),
    "bilinear upsampling": lambda: nn.Sequential(
        nn.AvgPool2d(2), nn.Upsample(scale_factor=2, mode="bilinear"), conv(3, padding=1)
    ),
    "transposed convolution": lambda: nn.Sequential(
        conv(3, stride=2, padding=1), nn.ConvTranspose2d(3, 3, 3, 2, 1, output_padding=1), conv(3, padding=1)
    ),
    "pixel shuffle": lambda: nn.Sequential(nn.Conv2d(3, 12, 3, 2, 1), nn.PixelShuffle(2), conv(3, padding=1)),
    "uneven adaptive pool": lambda: nn.Sequential(conv(3), nn.AdaptiveAvgPool2d(5), conv(3, padding=1)),
    "windows": lambda: Function(
        lambda x: (lambda w: (w + w.mean((3, 5), keepdim=True)).reshape(x.shape))(x.reshape(1, 3, 4, 6, 4, 6))
    ),
    "roll": lambda: Function(lambda x: x + x.roll((2, 1), (2, 3))),
    "circular padding": lambda: conv(3, padding=1, padding_mode="circular"),
    "written in place": lambda: Function(_shift_in_place),
}  # fmt: skip


def _shift_in_place(x: Tensor) -> Tensor:
    y = x.clone()
    y[:, :, 1:] += x[:, :, :-1]
    return y * 2


@pytest.mark.parametrize("name", EXACT)
def test_the_box_of_every_unit_is_the_support_of_its_gradient(name: str) -> None:
    field = assert_boxes_are_the_support(EXACT[name]())
    assert field.exact
    assert not field.is_global


@pytest.mark.parametrize("name", GLOBAL)
def test_operators_that_mix_all_positions_are_global(name: str) -> None:
    field = assert_boxes_are_the_support(GLOBAL[name]())
    assert field.is_global
    assert field.exact
    assert field.size is None


@pytest.mark.parametrize("name", HELD)
def test_units_with_different_boxes_share_a_bounding_box_marked_inexact(name: str) -> None:
    field = assert_boxes_are_the_support(HELD[name]())
    assert not field.exact


@pytest.mark.parametrize(
    ("kind", "batch_first", "layers"), [(nn.LSTM, True, 1), (nn.GRU, False, 2), (nn.RNN, True, 2)]
)
def test_a_recurrent_layer_in_both_directions_sees_the_line_it_scans_and_no_other(
    kind: type[nn.RNNBase], batch_first: bool, layers: int
) -> None:
    settings: Any = {"bidirectional": True, "batch_first": batch_first, "num_layers": layers}
    rows = assert_boxes_are_the_support(Scan(kind, "rows", **settings))
    assert rows == ReceptiveField(is_global=False, size=(2, 24), jump=(2.0, 0.0), start=(0.0, 0.0))
    columns = assert_boxes_are_the_support(Scan(kind, "columns", **settings))
    assert columns == ReceptiveField(is_global=False, size=(24, 2), jump=(0.0, 2.0), start=(0.0, 0.0))
    assert assert_boxes_are_the_support(Scan(kind, "tokens", **settings)).is_global


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_a_unidirectional_recurrent_layer_sees_its_past(kind: type[nn.RNNBase]) -> None:
    field = assert_boxes_are_the_support(Scan(kind, "rows"))
    assert not field.exact, "the boxes grow along the row"
    assert (field.size or (0, 0))[0] == 2


def test_the_last_state_of_a_recurrent_layer_has_seen_all_steps() -> None:
    class Last(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scan = nn.GRU(3, 4, batch_first=True)

        def forward(self, x: Tensor) -> Tensor:
            lines = x.permute(0, 2, 3, 1)
            _, last = self.scan(lines.flatten(0, 1))
            return last[0].reshape(*lines.shape[:2], 4).permute(0, 2, 1)[..., None]

    field = assert_boxes_are_the_support(Last())
    assert field.size == (1, 24)


def test_cells_called_step_by_step_are_followed() -> None:
    class Steps(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cell = nn.LSTMCell(3, 4)

        def forward(self, x: Tensor) -> Tensor:
            lines = x.permute(0, 2, 3, 1).flatten(0, 1)
            state, seen = None, []
            for step in lines.unbind(1):
                state = self.cell(step, state)
                seen.append(state[0])
            return torch.stack(seen, 1).unflatten(0, (1, -1)).permute(0, 3, 1, 2)

    field = assert_boxes_are_the_support(Steps())
    assert (field.size or (0, 0))[0] == 1


def test_an_empty_slice_of_tokens_is_traced() -> None:
    """As in networks without prefix tokens, which slice zero of them off their queries."""
    field = assert_boxes_are_the_support(
        nn.Sequential(
            conv(3), Function(lambda x: torch.cat([x[:, :, :0], x.split([0, x.shape[2]], 2)[1] * 2], 2))
        )
    )
    assert field.size == (3, 3)


def test_pooling_along_one_axis_is_global_along_that_axis_alone() -> None:
    field = assert_boxes_are_the_support(Function(lambda x: x + x.mean(2, keepdim=True)))
    assert field == ReceptiveField(is_global=False, size=(24, 1), jump=(0.0, 1.0), start=(0.0, 0.0))


def test_a_global_field_keeps_the_middle_of_its_local_part() -> None:
    local = nn.Sequential(conv(3, stride=2, padding=1), conv(3, stride=2, padding=1))
    mixing = nn.Sequential(*local, Function(squeeze_excite))
    alone, mixed = field_after(local), field_after(mixing)
    position = {"position": (2, 3), "grid": (6, 6), "extent": (24, 24)}
    assert mixed.is_global
    assert mixed.centre(**position) == alone.centre(**position) == (8.5, 12.5)


def test_a_global_field_without_local_part_is_centred_on_its_cell() -> None:
    field = field_after(GLOBAL["fully connected"]())
    assert field.centre((1, 0), grid=(2, 2), extent=(24, 24)) == (18.0, 6.0)


def test_a_map_of_one_position_still_grows_by_its_jump() -> None:
    network = nn.Sequential(conv(3, stride=2, padding=1), conv(2, stride=2), conv(3, padding=1))
    field = field_after(network, 4, 4)
    assert field == field_after(network, 64, 64)
    assert field.size == (13, 13)


def test_an_unknown_operator_is_logged_and_its_field_not_called_exact(
    caplog: pytest.LogCaptureFixture,
) -> None:
    network = Function(lambda x: torch.fft.fft2(x).abs())
    with caplog.at_level(logging.WARNING):
        field = field_after(network)
    assert field.is_global
    assert not field.exact
    assert "_fft" in caplog.text


def test_an_activation_assembled_in_a_fresh_tensor_is_refused() -> None:
    def assemble(x: Tensor) -> Tensor:
        y = torch.zeros(x.shape, dtype=x.dtype)
        y[:, :, 1:] = x[:, :, :-1]
        return y

    with pytest.raises(UntraceableWrite, match="expected writes into tensors made from the input"):
        field_after(Function(assemble))


def test_an_output_that_ignores_the_pixels_is_refused() -> None:
    with pytest.raises(NoPathFromInput, match="expected an output that depends on the pixels"):
        field_after(Function(lambda x: torch.zeros_like(x)))
    with pytest.raises(NoPathFromInput, match="got the activation, which does not"):
        field_after(Function(lambda x: torch.zeros(x.shape)))


# ---------------------------------------------------------------- random networks

_SMALL = st.integers(0, 3)


@st.composite
def layers(draw: st.DrawFn, channels: int, depth: int = 1) -> nn.Module:
    """A convolution, pooling, residual join or concatenation that keeps the number of channels."""
    choices = ["conv", "same conv", "pad", "crop", "pool"]
    if depth:
        choices += ["residual", "strided residual", "branches"]
    kind = draw(st.sampled_from(choices))
    stride, dilation = draw(st.integers(1, 2)), draw(st.integers(1, 2))
    groups = draw(st.sampled_from([1, 2, channels]))
    if kind == "conv":
        kernel = draw(st.tuples(st.integers(1, 4), st.integers(1, 4)))
        padding = draw(st.tuples(_SMALL, _SMALL))
        return nn.Conv2d(channels, channels, kernel, stride, padding, dilation, groups)
    if kind == "same conv":
        return _same_conv(draw, channels)
    if kind == "pad":
        return nn.ZeroPad2d(draw(st.tuples(_SMALL, _SMALL, _SMALL, _SMALL)))
    if kind == "crop":
        top, left = draw(_SMALL), draw(_SMALL)
        return Function(lambda x: x[:, :, top:, left:])
    if kind == "pool":
        kernel_size = draw(st.integers(2, 3))
        return nn.MaxPool2d(kernel_size, stride, draw(st.integers(0, 1)), ceil_mode=draw(st.booleans()))
    if kind == "residual":
        return Sum(
            nn.Sequential(_same_conv(draw, channels), nn.ReLU(), _same_conv(draw, channels)), nn.Identity()
        )
    if kind == "strided residual":
        main = nn.Sequential(nn.Conv2d(channels, channels, 3, 2, 1), nn.ReLU(), _same_conv(draw, channels))
        return Sum(main, nn.Conv2d(channels, channels, 1, 2))
    return Branches(*(_same_conv(draw, channels) for _ in range(draw(st.integers(2, 3)))), channels=channels)


def _same_conv(draw: st.DrawFn, channels: int) -> nn.Module:
    kernel, dilation = draw(st.integers(1, 4)), draw(st.integers(1, 2))
    total = (kernel - 1) * dilation
    top, left = draw(st.integers(0, total)), draw(st.integers(0, total))
    groups = draw(st.sampled_from([1, 2, channels]))
    return nn.Sequential(
        nn.ZeroPad2d((left, total - left, top, total - top)),
        nn.Conv2d(channels, channels, kernel, dilation=dilation, groups=groups),
    )


class Sum(nn.Module):
    def __init__(self, *branches: nn.Module) -> None:
        super().__init__()
        self.branches = nn.ModuleList(branches)

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([branch(x) for branch in self.branches]).sum(0)


class Branches(nn.Module):
    """Branches concatenated along channels, shuffled, and reduced again."""

    def __init__(self, *branches: nn.Module, channels: int) -> None:
        super().__init__()
        self.branches = nn.ModuleList(branches)
        self.thin = nn.Conv2d(len(branches) * channels, channels, 1, groups=2)

    def forward(self, x: Tensor) -> Tensor:
        together = torch.cat([branch(x) for branch in self.branches], 1)
        return self.thin(F.channel_shuffle(together, 2))


@st.composite
def networks(draw: st.DrawFn) -> nn.Module:
    channels = 4
    body = [layer for _ in range(draw(st.integers(1, 4))) for layer in (draw(layers(channels)), nn.ReLU())]
    return nn.Sequential(nn.Conv2d(3, channels, 1), *body)


@settings(deadline=None, max_examples=150)
@given(network=networks())
def test_random_networks_have_the_field_that_the_gradient_shows(network: nn.Module) -> None:
    assert_interior_unit_has_its_box(make_transparent(network), 144, 128)


def assert_interior_unit_has_its_box(network: nn.Module, height: int, width: int) -> None:
    field = field_after(network, height, width)
    pixels = torch.rand(1, 3, height, width, dtype=torch.float64, requires_grad=True)
    output = unlike_channels(network(pixels))
    assert field.exact
    position = interior_position(field, output.shape, (height, width))
    for axis in range(2):
        assert support(output[position], pixels, axis) == interval(field, axis, position[axis])


def interior_position(field: ReceptiveField, grid: Sequence[int], extent: tuple[int, int]) -> tuple[int, int]:
    """Return the middle of the positions whose boxes lie inside the input."""
    found = []
    for axis in range(2):
        boxes = [interval(field, axis, position) for position in range(grid[axis])]
        inside = [p for p, (low, high) in enumerate(boxes) if low >= 0 and high <= extent[axis]]
        assume(inside)
        found.append(inside[len(inside) // 2])
    return found[0], found[1]


@settings(deadline=None, max_examples=60)
@given(network=networks())
def test_random_networks_let_a_nan_through_from_the_edges_of_the_box_and_from_nowhere_else(
    network: nn.Module,
) -> None:
    # forward pass, with the network unchanged: NaN passes through maxima, clipping and cancelling weights
    height, width = 144, 128
    field = field_after(network, height, width)
    pixels = torch.rand(1, 3, height, width, dtype=torch.float64)
    position = interior_position(field, network(pixels).shape[2:], (height, width))
    for axis, extent in enumerate((height, width)):
        low, high = (int(edge) for edge in interval(field, axis, position[axis]))
        spoilt = pixels.repeat(4, 1, 1, 1)
        for image, (first, end) in zip(
            spoilt, [(low, low + 1), (high - 1, high), (0, low), (high, extent)], strict=True
        ):
            image.narrow(1 + axis, first, end - first).fill_(torch.nan)
        seen = network(spoilt)[(..., *position)].isnan().any(1)
        assert seen.tolist() == [True, True, False, False]


# ---------------------------------------------------------------- whole models, every tap


def _convnext() -> nn.Module:
    import_torchvision()
    from transformers import ConvNextConfig, ConvNextForImageClassification

    config = ConvNextConfig(hidden_sizes=[4, 4, 4, 4], num_labels=2, layer_scale_init_value=1.0)
    return ConvNextForImageClassification(config)


def _convnext_v2() -> nn.Module:
    import_torchvision()
    from transformers import ConvNextV2Config, ConvNextV2ForImageClassification

    return ConvNextV2ForImageClassification(ConvNextV2Config(hidden_sizes=[4, 4, 4, 4], num_labels=2))


def _resnet(**options: Any) -> nn.Module:
    import_torchvision()
    from transformers import ResNetConfig, ResNetForImageClassification

    config = ResNetConfig(embedding_size=4, hidden_sizes=[8, 8, 16, 16], num_labels=2, **options)
    return ResNetForImageClassification(config)


def _torchvision_resnet() -> nn.Module:
    import_torchvision()
    from torchvision.models.resnet import Bottleneck, ResNet

    return ResNet(Bottleneck, [3, 4, 6, 3], num_classes=2, width_per_group=2)


def _mobilenet() -> nn.Module:
    import_torchvision()
    from torchvision.models import MobileNetV2

    return MobileNetV2(num_classes=2, width_mult=0.1)


def _efficientnet_lite() -> nn.Module:
    import_torchvision()
    from timm.models.efficientnet import _gen_efficientnet_lite

    # as `timm.create_model("tf_efficientnet_lite0")` builds it, but narrow
    return _gen_efficientnet_lite(
        "tf_efficientnet_lite0", channel_multiplier=0.1, num_classes=2, pad_type="same", bn_eps=1e-3
    )


def _densenet() -> nn.Module:
    import_torchvision()
    from torchvision.models import DenseNet

    return DenseNet(growth_rate=2, num_init_features=4, bn_size=1, num_classes=2)


def _regnet(se_ratio: float | None) -> nn.Module:
    import_torchvision()
    from torchvision.models.regnet import BlockParams, RegNet

    params = BlockParams([1, 3, 6, 6], [8, 8, 16, 16], [4] * 4, [1.0] * 4, [2] * 4, se_ratio)
    return RegNet(params, num_classes=2, stem_width=8)


MODELS: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "HF ConvNeXt": (_convnext, 1760),
    "HF ConvNeXt V2": (_convnext_v2, 256),
    "HF ResNet-50": (_resnet, 512),
    "HF ResNet-50 with the stride in the first convolution": (lambda: _resnet(downsample_in_bottleneck=True), 544),
    "torchvision ResNet-50": (_torchvision_resnet, 512),
    "MobileNetV2": (_mobilenet, 544),
    "EfficientNet-Lite0": (_efficientnet_lite, 960),
    "DenseNet-121": (_densenet, 2144),
    "RegNet-X": (lambda: _regnet(None), 736),
    "RegNet-Y": (lambda: _regnet(0.25), 256),
}  # fmt: skip


@pytest.mark.parametrize("name", MODELS)
def test_every_tap_of_a_model_has_the_field_that_its_gradient_shows(name: str) -> None:
    build, length = MODELS[name]
    torch.manual_seed(0)
    model = Vision(build())
    taps = find_taps(model)
    fields = receptive_fields(model, taps)
    assert list(fields) == [tap.layer for tap in taps]
    make_transparent(model.network)
    # long strips, vertical and horizontal: the field of the last layers is larger than any square we could afford
    for axis, size in enumerate([(length, 32), (32, length)]):
        pixels = torch.rand(1, 3, *size, dtype=torch.float64, requires_grad=True)
        outputs = _outputs(model, pixels)
        for tap in taps[axis::2]:
            field = fields[tap.layer]
            assert field.exact
            if field.jump is not None and field.start is not None:
                # all these networks treat rows and columns alike, so each tap is checked along one axis
                assert field.jump[0] == field.jump[1]
                assert field.start[0] == field.start[1]
            output = unlike_channels(as_nchw(tap, outputs[tap.module, tap.call]))
            position = [n // 2 for n in output.shape]
            found = support(output[tuple(position)], pixels, axis)
            if field.is_global:
                assert found == (0, length), tap.layer
            else:
                assert found == interval(field, axis, position[axis]), tap.layer


def _outputs(model: Vision, pixels: Tensor) -> dict[tuple[str, int], Tensor]:
    outputs: dict[tuple[str, int], Tensor] = {}
    handles = []
    for name, module in model.network.named_modules():
        if isinstance(module, nn.Conv2d | nn.Linear):

            def keep(_module: nn.Module, _inputs: Any, output: Tensor, name: str = name) -> None:
                call = sum(key[0] == name for key in outputs)
                outputs[name, call] = output.clone()

            handles.append(module.register_forward_hook(keep))
    model(pixels)
    for handle in handles:
        handle.remove()
    return outputs


def test_every_tap_of_a_vision_transformer_has_the_field_that_its_gradient_shows() -> None:
    import_torchvision()
    from transformers import ViTConfig, ViTForImageClassification

    torch.manual_seed(0)
    config = ViTConfig(
        hidden_size=8, num_hidden_layers=2, num_attention_heads=2, intermediate_size=8, image_size=64, num_labels=2
    )  # fmt: skip
    model = Vision(ViTForImageClassification(config).double(), size=64)
    model.float()
    taps = find_taps(model)
    fields = receptive_fields(model, taps)
    make_transparent(model.network)
    pixels = torch.rand(1, 3, 64, 64, dtype=torch.float64, requires_grad=True)
    outputs = _outputs(model, pixels)
    assert {fields[tap.layer].is_global for tap in taps} == {True, False}
    for tap in taps:
        output = as_nchw(tap, outputs[tap.module, tap.call])
        field = fields[tap.layer]
        for axis in range(2):
            found = support(output[0, :, 1, 2].square().sum(), pixels, axis)
            expected = (0, 64) if field.is_global else interval(field, axis, (1, 2)[axis])
            assert found == expected, tap.layer
        # the center is the token's patch, however far the token sees
        assert field.centre((1, 2), grid=(4, 4), extent=(64, 64)) == (24.0, 40.0)


# ---------------------------------------------------------------- the literature


def test_convnext_tiny_sees_more_than_its_input_from_stage_3_on() -> None:
    import_torchvision()
    from transformers import ConvNextConfig, ConvNextForImageClassification

    model = Vision(ConvNextForImageClassification(ConvNextConfig()))
    sizes = {layer: field.size for layer, field in receptive_fields(model, find_taps(model)).items()}
    assert len(sizes) == 58
    assert sizes["patch_embedding"] == (4, 4)
    assert sizes["stage1.block1.dwconv"] == sizes["stage1.block1.pwconv2"] == (28, 28)
    assert sizes["stage4.block3.dwconv"] == (1688, 1688)


@pytest.mark.parametrize(("in_first", "size"), [(False, 427), (True, 483)])
def test_resnet_50_sees_427_or_483_pixels_depending_on_where_the_stride_sits(
    in_first: bool, size: int
) -> None:
    # 483: A. Araujo, W. Norris, J. Sim, "Computing Receptive Fields of Convolutional Neural Networks", Distill 2019
    model = Vision(_resnet(downsample_in_bottleneck=in_first))
    assert list(receptive_fields(model, find_taps(model)).values())[-1].size == (size, size)


def test_squeeze_and_excitation_changes_the_size_but_not_the_middle_of_a_field() -> None:
    with_gates, without = Vision(_regnet(0.25)), Vision(_regnet(None))
    gated, plain = (receptive_fields(model, find_taps(model)) for model in (with_gates, without))
    assert gated.keys() == plain.keys()
    unit = {"position": (3, 4), "grid": (7, 7), "extent": (224, 224)}
    assert sum(field.is_global for field in gated.values()) > 40
    for layer, field in gated.items():
        assert field.centre(**unit) == plain[layer].centre(**unit)
