"""From the last map of the vision tower to the tokens that the language model reads."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from florence2.config import VisionConfig
from florence2.errors import ImageError


class Projector(nn.Module):
    """[B, H, W, C] -> [B, 1 + H*W, d]: the mean over all tokens comes FIRST, the tokens follow row by row.

    Learned positions (column half, row half), then row 0 of a sinusoid table over time (an image is a video of one
    frame; that row is 0, 1, 0, 1, ..., not zero), the mean, a linear layer without bias, LayerNorm.
    """

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        width = config.embed_dim[-1]
        self.image_projection = nn.Linear(width, config.projection_dim, bias=False)
        self.image_proj_norm = nn.LayerNorm(config.projection_dim)
        self.image_position_embed = Positions2d(config.max_position_embeddings, width)
        self.visual_temporal_embed = Sinusoids(config.max_temporal_embeddings, width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.image_position_embed(*x.shape[1:3]) + self.visual_temporal_embed.pos_idx_to_embed[0]
        x = x.flatten(1, 2)
        x = torch.cat([x.mean(dim=1, keepdim=True), x], dim=1)
        return self.image_proj_norm(self.image_projection(x))


class Positions2d(nn.Module):
    def __init__(self, count: int, width: int) -> None:
        super().__init__()
        self.row_embeddings = nn.Embedding(count, width // 2)
        self.column_embeddings = nn.Embedding(count, width - width // 2)

    def forward(self, height: int, width: int) -> Tensor:
        """[H, W, C]. ImageError if the tables are shorter than the map."""
        count = self.row_embeddings.num_embeddings
        if max(height, width) > count:
            raise ImageError(
                f"expected at most {count} x {count} image tokens, got {width} x {height}: use smaller images"
            )
        rows, columns = self.row_embeddings.weight[:height], self.column_embeddings.weight[:width]
        return torch.cat([columns.expand(height, -1, -1), rows[:, None].expand(-1, width, -1)], dim=-1)


class Sinusoids(nn.Module):
    """A constant table [positions, C]: sines at the even places, cosines at the odd ones."""

    def __init__(self, positions: int, width: int) -> None:
        super().__init__()
        half = width // 2
        frequencies = torch.exp(torch.arange(half, dtype=torch.float32) * -(math.log(10000) / half))
        angles = torch.arange(positions, dtype=torch.float32)[:, None] * frequencies
        table = torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)
        self.register_buffer("pos_idx_to_embed", table)
        self.pos_idx_to_embed: Tensor
