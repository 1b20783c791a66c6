"""The layers that the engine knows: each computes what torch's own does, and writes to the tape.

A layer of another class, subclasses included, may compute anything, and is not known. The rows of every input
are the windows of the batch, vehicle by vehicle, or a whole number of positions for each.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear

from fedfsd.engine.tape import Tape
from fedfsd.engine.use import Added, Filtered, Looked, Scaled

Forward = Callable[..., Any]


def attach(model: nn.Module) -> Tape:
    """Make the known layers of ``model`` that learn write to a tape; the others stay as they are."""
    tape = Tape(one for one in model.parameters() if one.requires_grad)
    for module in model.modules():
        if any(one.requires_grad for one in module.parameters()):
            forward = _forward(module, tape)
            if forward is not None:
                module.forward = forward
    return tape


def unknown(model: nn.Module) -> dict[str, str]:
    """Name and class of each module with learning parameters of its own that is not known."""
    return {
        name: type(module).__name__
        for name, module in model.named_modules()
        if any(one.requires_grad for one in module.parameters(recurse=False))
        and _forward(module, Tape()) is None
    }


def _forward(module: nn.Module, tape: Tape) -> Forward | None:
    """The recorded forward; None for a module that is not known, or not with its options."""
    make = LAYERS.get(type(module))
    return make(module, tape) if make else None


def _linear(module: Any, tape: Tape) -> Forward:
    return lambda input: tape.linear(input, module.weight, module.bias)


def _convolution(module: Any, tape: Tape) -> Forward | None:
    if module.padding_mode != "zeros" or module.padding == "same":
        return None
    padding = (0,) * len(module.kernel_size) if module.padding == "valid" else module.padding

    def forward(input: Tensor) -> Tensor:
        output = module._conv_forward(input, module.weight, module.bias)
        weight = Filtered(input.detach(), module, padding)
        return tape.note(output, input, {module.weight: weight, module.bias: Added(1, 1)})

    return forward


def _layer_norm(module: Any, tape: Tape) -> Forward:
    def forward(input: Tensor) -> Tensor:
        shape, value = module.normalized_shape, input.detach()
        output = functional.layer_norm(input, shape, module.weight, module.bias, module.eps)
        weight = Scaled(-len(shape), normalised=lambda: functional.layer_norm(value, shape, eps=module.eps))
        return tape.note(output, input, {module.weight: weight, module.bias: Added(-len(shape))})

    return forward


def _group_norm(module: Any, tape: Tape) -> Forward:
    def forward(input: Tensor) -> Tensor:
        groups, value = module.num_groups, input.detach()
        output = functional.group_norm(input, groups, module.weight, module.bias, module.eps)
        weight = Scaled(1, 1, normalised=lambda: functional.group_norm(value, groups, eps=module.eps))
        return tape.note(output, input, {module.weight: weight, module.bias: Added(1, 1)})

    return forward


def _embedding(module: Any, tape: Tape) -> Forward | None:
    if module.max_norm is not None or module.scale_grad_by_freq or module.sparse:
        return None

    def forward(input: Tensor) -> Tensor:
        output = functional.embedding(input, module.weight, module.padding_idx)
        use = Looked(input, module.num_embeddings, module.padding_idx)
        return tape.note(output, input, {module.weight: use})

    return forward


def _attention(module: Any, tape: Tape) -> Forward | None:
    """Multi-head attention (Vaswani et al. 2017), written out: torch's reads weights past their layers."""
    if module.bias_k is not None or module.add_zero_attn or not module._qkv_same_embed_dim:
        return None
    heads = module.num_heads

    def forward(
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,  # noqa: ARG001 - a hint beside attn_mask, which has it all
    ) -> tuple[Tensor, Tensor | None]:
        made: dict[int, Tensor] = {}
        for given in (query, key, value):  # often one tensor
            if id(given) not in made:
                rows = given if module.batch_first else given.transpose(0, 1)
                made[id(given)] = tape.linear(rows, module.in_proj_weight, module.in_proj_bias)
        q, k, v = (
            made[id(given)].chunk(3, dim=2)[part].unflatten(2, (heads, -1)).transpose(1, 2)
            for part, given in enumerate((query, key, value))
        )
        score = q @ k.transpose(2, 3) * q.shape[-1] ** -0.5  # (B, heads, steps, steps)
        if attn_mask is not None:
            score = _masked(score, attn_mask.unflatten(0, (-1, heads)) if attn_mask.dim() == 3 else attn_mask)
        if key_padding_mask is not None:
            score = _masked(score, key_padding_mask[:, None, None])
        weight = score.softmax(dim=-1)
        output = module.out_proj((weight @ v).transpose(1, 2).flatten(2))
        if not module.batch_first:
            output = output.transpose(0, 1)
        if not need_weights:
            return output, None
        return output, weight.mean(dim=1) if average_attn_weights else weight

    return forward


def _masked(score: Tensor, mask: Tensor) -> Tensor:
    """True: never looked at; numbers are added."""
    return score.masked_fill(mask, -torch.inf) if mask.dtype is torch.bool else score + mask


def _recurrent(module: Any, tape: Tape) -> Forward | None:
    """GRU and LSTM, step by step: torch's own keep no step's gradients apart."""
    if module.proj_size:
        return None
    cell, parts = (_lstm_cell, 2) if module.mode == "LSTM" else (_gru_cell, 1)
    ways = 2 if module.bidirectional else 1

    def one_way(values: Tensor, state: tuple[Tensor, ...], name: str) -> tuple[Tensor, tuple[Tensor, ...]]:
        """(B, S, H) outputs and the last state of one layer in one direction."""
        inward, onward = (getattr(module, f"weight_{part}_{name}") for part in ("ih", "hh"))
        biases = [getattr(module, f"bias_{part}_{name}") if module.bias else None for part in ("ih", "hh")]
        outputs = []
        gates = tape.linear(values, inward, biases[0]).unbind(dim=1)
        backward = name.endswith("reverse")
        for gate in reversed(gates) if backward else gates:
            state = cell(gate, tape.linear(state[0], onward, biases[1]), state)
            outputs.append(state[0])
        return torch.stack(outputs[::-1] if backward else outputs, dim=1), state

    def forward(input: Tensor, hx: Any = None) -> tuple[Tensor, Any]:
        values = input if module.batch_first else input.transpose(0, 1)
        given = hx if hx is None or isinstance(hx, tuple) else (hx,)
        nothing = values.new_zeros(len(values), module.hidden_size)
        ends = []
        for layer in range(module.num_layers):
            sides = []
            for way in range(ways):
                index = layer * ways + way
                state = tuple(part[index] for part in given) if given else (nothing,) * parts
                side, end = one_way(values, state, f"l{layer}" + ("_reverse" if way else ""))
                sides.append(side)
                ends.append(end)
            values = torch.cat(sides, dim=2)
        last = tuple(torch.stack(part) for part in zip(*ends, strict=True))
        return values if module.batch_first else values.transpose(0, 1), last if len(last) > 1 else last[0]

    return forward


def _gru_cell(inward: Tensor, onward: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Cho et al. 2014, reset after the product; gates (B, 3 H)."""
    reset_in, update_in, new_in = inward.chunk(3, dim=1)
    reset_on, update_on, new_on = onward.chunk(3, dim=1)
    update = torch.sigmoid(update_in + update_on)
    new = torch.tanh(new_in + torch.sigmoid(reset_in + reset_on) * new_on)
    return (new + update * (state[0] - new),)


def _lstm_cell(inward: Tensor, onward: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Hochreiter and Schmidhuber 1997 with a forget gate; gates (B, 4 H)."""
    enter, forget, new, leave = (inward + onward).chunk(4, dim=1)
    memory = torch.sigmoid(forget) * state[1] + torch.sigmoid(enter) * torch.tanh(new)
    return torch.sigmoid(leave) * torch.tanh(memory), memory


LAYERS: dict[type[nn.Module], Callable[[Any, Tape], Forward | None]] = {
    nn.Linear: _linear,
    NonDynamicallyQuantizableLinear: _linear,  # a linear layer; in attention, its weight is taken from it
    nn.Conv1d: _convolution,
    nn.Conv2d: _convolution,
    nn.LayerNorm: _layer_norm,
    nn.GroupNorm: _group_norm,
    nn.Embedding: _embedding,
    nn.MultiheadAttention: _attention,
    nn.GRU: _recurrent,
    nn.LSTM: _recurrent,
}
