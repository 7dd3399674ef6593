"""BART, the language model: an encoder that reads image tokens and prompt, a decoder that writes the answer.

What is unusual: norms come AFTER the residual sums (post-norm); positions are learned, with two rows at the start of
their table that are never used; embeddings are normed; one matrix is the embedding of both sides and the head.

Source: Lewis et al., BART (arXiv 1910.13461).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from florence2.config import TextConfig
from florence2.errors import PromptError
from florence2.mlp import mlp

OFFSET = 2  # of the position tables: BART's padding index, plus one


class Bart(nn.Module):
    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.shared = nn.Embedding(config.vocab_size, config.d_model, config.pad_token_id)
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)
        self.scale = config.d_model**0.5 if config.scale_embedding else 1.0

    def embed(self, token_ids: Tensor) -> Tensor:
        """[B, L] -> [B, L, d]."""
        return self.shared(token_ids) * self.scale


class Stack(nn.Module):
    """What encoder and decoder share: positions, the norm of the embeddings, dropout."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.embed_positions = nn.Embedding(config.max_position_embeddings + OFFSET, config.d_model)
        self.layernorm_embedding = nn.LayerNorm(config.d_model)
        self.dropout = config.dropout
        self.checkpointing = False

    def place(self, embedded: Tensor, start: int = 0) -> Tensor:
        """Adds the positions from `start` on, and norms. PromptError if the position table ends before the sequence."""
        end = start + embedded.shape[1]
        if end > (positions := self.embed_positions.num_embeddings - OFFSET):
            raise PromptError(f"expected at most {positions} tokens in a sequence, got {end}")
        x = self.layernorm_embedding(embedded + self.embed_positions.weight[start + OFFSET : end + OFFSET])
        return F.dropout(x, self.dropout, self.training)

    def run(self, layer: nn.Module, *inputs: Tensor | None) -> Tensor:
        if self.checkpointing and self.training:
            return checkpoint(layer, *inputs, use_reentrant=False)
        return layer(*inputs)


class Encoder(Stack):
    def __init__(self, config: TextConfig) -> None:
        super().__init__(config)
        self.layers = nn.ModuleList(EncoderLayer(config) for _ in range(config.encoder_layers))

    def forward(self, embedded: Tensor, mask: Tensor | None) -> Tensor:
        """[B, S, d], and [B, S] bool, true where there is something (None: everywhere) -> [B, S, d]."""
        x, mask = self.place(embedded), attendable(mask)
        for layer in self.layers:
            x = self.run(layer, x, mask)
        return x


class Decoder(Stack):
    def __init__(self, config: TextConfig) -> None:
        super().__init__(config)
        self.layers = nn.ModuleList(DecoderLayer(config) for _ in range(config.decoder_layers))

    def forward(self, embedded: Tensor, memory: Tensor, mask: Tensor | None) -> Tensor:
        """[B, T, d]: each position sees those before it, and all of memory [B, S, d] under its mask [B, S]."""
        x, mask = self.place(embedded), attendable(mask)
        for layer in self.layers:
            x = self.run(layer, x, memory, mask)
        return x


class Layer(nn.Module):
    def __init__(self, config: TextConfig, hidden: int) -> None:
        super().__init__()
        self.dropout, self.activation_dropout = config.dropout, config.activation_dropout
        self.fc1 = nn.Linear(config.d_model, hidden)
        self.fc2 = nn.Linear(hidden, config.d_model)
        self.final_layer_norm = nn.LayerNorm(config.d_model)

    def add(self, x: Tensor, branch: Tensor) -> Tensor:
        return x + F.dropout(branch, self.dropout, self.training)

    def feed(self, x: Tensor) -> Tensor:
        hidden = mlp(x, self.fc1, self.fc2, self.activation_dropout if self.training else 0.0)
        return self.final_layer_norm(self.add(x, hidden))


class EncoderLayer(Layer):
    def __init__(self, config: TextConfig) -> None:
        super().__init__(config, config.encoder_ffn_dim)
        self.self_attn = Attention(config.d_model, config.encoder_attention_heads, config.attention_dropout)
        self.self_attn_layer_norm = nn.LayerNorm(config.d_model)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        x = self.feed(self.self_attn_layer_norm(self.add(x, self.self_attn(x, x, mask))))
        if x.dtype is torch.float16:  # sums of a post-norm layer can leave its range
            x = x.clamp(-HALF_LIMIT, HALF_LIMIT)
        return x


HALF_LIMIT = torch.finfo(torch.float16).max - 1000


class DecoderLayer(Layer):
    def __init__(self, config: TextConfig) -> None:
        super().__init__(config, config.decoder_ffn_dim)
        width, heads = config.d_model, config.decoder_attention_heads
        self.self_attn = Attention(width, heads, config.attention_dropout)
        self.self_attn_layer_norm = nn.LayerNorm(width)
        self.encoder_attn = Attention(width, heads, config.attention_dropout)
        self.encoder_attn_layer_norm = nn.LayerNorm(width)

    def forward(self, x: Tensor, memory: Tensor, mask: Tensor | None) -> Tensor:
        x = self.self_attn_layer_norm(self.add(x, self.self_attn(x, x, causal=True)))
        x = self.encoder_attn_layer_norm(self.add(x, self.encoder_attn(x, memory, mask)))
        return self.feed(x)


class Attention(nn.Module):
    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.k_proj = nn.Linear(width, width)
        self.v_proj = nn.Linear(width, width)
        self.q_proj = nn.Linear(width, width)
        self.out_proj = nn.Linear(width, width)

    def split(self, x: Tensor) -> Tensor:
        """[B, T, d] -> [B, heads, T, d / heads]."""
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def forward(self, x: Tensor, memory: Tensor, mask: Tensor | None = None, causal: bool = False) -> Tensor:
        q, k, v = self.split(self.q_proj(x)), self.split(self.k_proj(memory)), self.split(self.v_proj(memory))
        dropout = self.dropout if self.training else 0.0
        x = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout, is_causal=causal)
        return self.out_proj(x.transpose(1, 2).flatten(2))


def attendable(mask: Tensor | None) -> Tensor | None:
    """[B, S] -> [B, 1, 1, S], for every head and every query."""
    return None if mask is None else mask[:, None, None, :]
