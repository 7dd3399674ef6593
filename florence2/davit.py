"""DaViT, the vision tower: four stages of blocks that attend within windows, then between channels.

What is unusual: no class token, no final norm; the channel attention is a softmax over a channels x channels matrix,
scaled by the number of TOKENS (so it depends on the resolution); windows are padded with zeros that are attended to.
Activations stay [B, H, W, C] throughout: linear layers and norms then work on contiguous channels, and the
convolutions see the same memory as channels-last.

Source: Ding et al., DaViT (arXiv 2204.03645), as used in Florence-2 (arXiv 2311.06242, section 5).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from florence2.config import VisionConfig
from florence2.mlp import mlp


class DaViT(nn.Module):
    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        drop = iter(torch.linspace(0, config.drop_path_rate, 2 * sum(config.depths), device="cpu").tolist())
        stages = range(len(config.depths))
        self.convs = nn.ModuleList(PatchEmbedding(config, stage) for stage in stages)
        self.blocks = nn.ModuleList(
            nn.ModuleList(Block(config, stage, next(drop), next(drop)) for _ in range(config.depths[stage]))
            for stage in stages
        )
        self.checkpointing = False

    def forward(self, pixels: Tensor) -> list[Tensor]:
        """[B, 3, height, width] -> the maps of all stages, finest first, each [B, H, W, C]."""
        x, maps = pixels.permute(0, 2, 3, 1), []
        for embed, blocks in zip(self.convs, self.blocks, strict=True):
            x = embed(x)
            for block in blocks:
                x = checkpoint(block, x, use_reentrant=False) if self.checkpointing and self.training else block(x)
            maps.append(x)
        return maps


class PatchEmbedding(nn.Module):
    """A strided convolution; its norm comes before it, except in the first stage."""

    def __init__(self, config: VisionConfig, stage: int) -> None:
        super().__init__()
        width, before = config.embed_dim[stage], (config.in_channels, *config.embed_dim)[stage]
        self.prenorm = config.patch_prenorm[stage]
        self.conv = nn.Conv2d(
            before, width, config.patch_size[stage], config.patch_stride[stage], config.patch_padding[stage]
        )
        self.norm = nn.LayerNorm(before if self.prenorm else width)

    def forward(self, x: Tensor) -> Tensor:
        if self.prenorm:
            return convolve(self.conv, self.norm(x))
        return self.norm(convolve(self.conv, x))


class Block(nn.Module):
    def __init__(self, config: VisionConfig, stage: int, spatial_drop: float, channel_drop: float) -> None:
        super().__init__()
        self.spatial_block = Half(config, stage, spatial_drop, window_attn=WindowAttention(config, stage))
        self.channel_block = Half(config, stage, channel_drop, channel_attn=ChannelAttention(config, stage))

    def forward(self, x: Tensor) -> Tensor:
        return self.channel_block(self.spatial_block(x))


class Half(nn.Module):
    """Depth-wise 3x3, attention, depth-wise 3x3, MLP, each with its residual.

    The attention is named by its keyword, since checkpoints know it by that name.
    """

    def __init__(self, config: VisionConfig, stage: int, drop: float, **attention: nn.Module) -> None:
        super().__init__()
        ((self.attention, module),) = attention.items()
        width = config.embed_dim[stage]
        self.conv1 = nn.Conv2d(width, width, 3, padding=1, groups=width)
        self.norm1 = nn.LayerNorm(width)
        self.add_module(self.attention, module)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, groups=width)
        self.norm2 = nn.LayerNorm(width)
        self.ffn = Mlp(width, int(width * config.mlp_ratio))
        self.drop = DropPath(drop)

    def forward(self, x: Tensor) -> Tensor:
        x = x + convolve(self.conv1, x)
        x = x + self.drop(self.get_submodule(self.attention)(self.norm1(x)))
        x = x + convolve(self.conv2, x)
        return x + self.drop(self.ffn(self.norm2(x)))


class WindowAttention(nn.Module):
    """Attention within windows of w x w tokens: no shift, no bias for positions."""

    def __init__(self, config: VisionConfig, stage: int) -> None:
        super().__init__()
        width = config.embed_dim[stage]
        self.heads, self.window = config.num_heads[stage], config.window_size
        self.qkv = nn.Linear(width, 3 * width, bias=config.qkv_bias)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        _, height, width, channels = x.shape
        w = self.window
        if height % w or width % w:
            x = F.pad(x, (0, 0, 0, -width % w, 0, -height % w))  # zeros, and they are attended to
        batch, rows, columns = x.shape[0], x.shape[1] // w, x.shape[2] // w
        windows = x.view(batch, rows, w, columns, w, channels).transpose(2, 3).reshape(-1, w * w, channels)
        q, k, v = self.qkv(windows).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        windows = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(batch, rows, columns, w, w, channels)
        x = windows.transpose(2, 3).reshape(batch, rows * w, columns * w, channels)
        return self.proj(x[:, :height, :width])


class ChannelAttention(nn.Module):
    """Within each group of channels, every channel attends to every channel: its "positions" are the channels, its
    "features" are the tokens."""

    def __init__(self, config: VisionConfig, stage: int) -> None:
        super().__init__()
        width = config.embed_dim[stage]
        self.groups = config.num_groups[stage]
        self.qkv = nn.Linear(width, 3 * width, bias=config.qkv_bias)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        batch, height, width, channels = x.shape
        tokens = height * width
        qkv = self.qkv(x).view(batch, tokens, 3, self.groups, channels // self.groups)
        q, k, v = qkv.permute(2, 0, 3, 4, 1)  # each [B, groups, C / groups, N]
        x = F.scaled_dot_product_attention(q, k, v, scale=tokens**-0.5)  # logits in fp32: half could not hold the sum
        x = x.permute(0, 3, 1, 2).reshape(batch, height, width, channels)
        return self.proj(x)


class Mlp(nn.Module):
    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        return mlp(x, self.fc1, self.fc2)


class DropPath(nn.Module):
    """Leaves a residual branch out of some images of a training batch, and scales it up in the others."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.rate == 0:
            return x
        keep = 1 - self.rate
        mask = torch.rand(x.shape[0], *[1] * (x.ndim - 1), device=x.device) < keep
        return x * mask.to(x.dtype) / keep


def convolve(conv: nn.Conv2d, x: Tensor) -> Tensor:
    """A convolution of [B, H, W, C]."""
    return conv(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
