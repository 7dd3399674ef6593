"""The decoder one token at a time, for all beams of all items: what training computes at once, computed only once.

Nothing is copied when beams change places. The beams of an item share their keys and values, and a table of ancestors
says which of them each beam may see: the token at time t of beam b was written by beam `ancestors[b, t]`.
Cross-attention keys and values are computed once an item. The beams are the queries of one attention: each key is read
once for all of them.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from florence2.bart import Attention, DecoderLayer
from florence2.model import Florence2, Memory

BLOCK = 32  # time steps by which the cache grows


class Cache:
    """Keys and values of `items` x `beams`. Heads and width come from the model, lengths from the memory.

    `in_blocks`: attention is over whole blocks, what is not written yet being masked, so that shapes change once in 32
    steps: what a GPU's kernels and graphs like, and a CPU would read for nothing.
    """

    def __init__(self, model: Florence2, memory: Memory, beams: int, in_blocks: bool | None = None) -> None:
        self.model, self.beams, self.time = model, beams, 0
        self.in_blocks = memory.states.is_cuda if in_blocks is None else in_blocks
        self.head = Head(model.language_model.shared.weight)
        self.layers = [LayerCache(layer, memory, beams) for layer in model.language_model.decoder.layers]
        mask = memory.mask
        self.mask = None if mask is None else bias(mask[:, None, None, :], memory.states.dtype)
        self.ancestors = torch.empty(len(memory.states), beams, 0, dtype=torch.long, device=memory.states.device)

    def step(self, token_ids: Tensor) -> Tensor:
        """Reads the newest token of every beam [items, beams]; hidden states [items, beams, d] for the next one."""
        items, beams = token_ids.shape
        own = torch.arange(beams, device=token_ids.device).expand(items, -1)
        self.ancestors = torch.cat([self.ancestors, own[..., None]], dim=-1)
        seen = F.one_hot(self.ancestors, beams).flatten(2)[:, None]  # [items, 1, beams, time * beams]
        visible = bias(seen.bool(), self.model.dtype)
        if self.in_blocks:
            visible = F.pad(visible, (0, -visible.shape[-1] % (BLOCK * beams)), value=-torch.inf)
        embedded = self.model.language_model.embed(token_ids.view(-1, 1))
        x = self.model.language_model.decoder.place(embedded, self.time).view(items, beams, -1)
        for layer in self.layers:
            x = layer.step(x, self.time, visible, self.mask)
        self.time += 1
        return x

    def follow(self, parents: Tensor) -> None:
        """Beam b goes on from beam `parents[item, b]`: all that changes is whom it descends from."""
        self.ancestors = self.ancestors.gather(1, parents[..., None].expand(-1, -1, self.time))

    def keep(self, items: Tensor) -> None:
        """Only these items stay in the batch."""
        self.ancestors = self.ancestors[items]
        self.mask = None if self.mask is None else self.mask[items]
        for layer in self.layers:
            layer.keep(items)

    def logits(self, hidden: Tensor) -> Tensor:
        """[rows, d] -> [rows, vocabulary] in fp32."""
        return self.head(hidden).float()


class Head:
    """hidden [rows, d] -> logits [rows, vocabulary], for few rows and many calls.

    On a CPU the product is as fast as its weights come from memory, and oneDNN lays them out for that: at 24 rows of
    base 16 ms instead of 30, for a second copy of the matrix (0.16 GB) while answers are searched for.
    """

    def __init__(self, weight: Tensor) -> None:
        self.weight = weight
        packs = weight.device.type == "cpu" and weight.dtype is torch.float32 and torch.backends.mkldnn.is_available()
        self.packed = torch.ops.mkldnn._reorder_linear_weight(weight.detach()) if packs else None

    def __call__(self, hidden: Tensor) -> Tensor:
        if self.packed is None:
            return F.linear(hidden, self.weight)
        return torch.ops.mkldnn._linear_pointwise(hidden, self.packed, None, "none", [], "")


class LayerCache:
    """One decoder layer's keys and values. Slot t * beams + b of the own ones belongs to time t, beam b."""

    def __init__(self, layer: DecoderLayer, memory: Memory, beams: int) -> None:
        self.layer, self.beams = layer, beams
        cross = layer.encoder_attn
        self.memory_keys = cross.split(cross.k_proj(memory.states)).contiguous()  # [items, heads, S, d / heads]
        self.memory_values = cross.split(cross.v_proj(memory.states)).contiguous()
        items, heads, _, size = self.memory_keys.shape
        self.keys = self.memory_keys.new_zeros(items, heads, BLOCK * beams, size)
        self.values = torch.zeros_like(self.keys)

    def step(self, x: Tensor, time: int, visible: Tensor, mask: Tensor | None) -> Tensor:
        layer, attention, cross = self.layer, self.layer.self_attn, self.layer.encoder_attn
        start, end, slots = time * self.beams, (time + 1) * self.beams, visible.shape[-1]
        self.grow(slots)
        self.keys[:, :, start:end] = attention.split(attention.k_proj(x))
        self.values[:, :, start:end] = attention.split(attention.v_proj(x))
        own = attend(attention, x, self.keys[:, :, :slots], self.values[:, :, :slots], visible)
        x = layer.self_attn_layer_norm(x + own)
        x = layer.encoder_attn_layer_norm(x + attend(cross, x, self.memory_keys, self.memory_values, mask))
        return layer.feed(x)

    def grow(self, slots: int) -> None:
        if slots > self.keys.shape[2]:
            self.keys, self.values = (F.pad(x, (0, 0, 0, BLOCK * self.beams)) for x in (self.keys, self.values))

    def keep(self, items: Tensor) -> None:
        self.keys, self.values = self.keys[items], self.values[items]
        self.memory_keys, self.memory_values = self.memory_keys[items], self.memory_values[items]


def attend(attention: Attention, x: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None) -> Tensor:
    """Attention of few queries [items, beams, d] to many keys [items, heads, S, d / heads]."""
    q = attention.split(attention.q_proj(x))
    x = F.scaled_dot_product_attention(q, keys, values, attn_mask=mask)
    return attention.out_proj(x.transpose(1, 2).flatten(2))


def bias(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """0 where the mask is true, -inf elsewhere."""
    return torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill_(~mask, -torch.inf)
