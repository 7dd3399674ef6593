"""DETR's family."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import (
    ConditionalDetrConfig,
    ConditionalDetrForObjectDetection,
    ConditionalDetrImageProcessor,
    DeformableDetrConfig,
    DeformableDetrForObjectDetection,
    DeformableDetrImageProcessor,
    ResNetConfig,
    RfDetrConfig,
    RfDetrDinov2Config,
    RfDetrForObjectDetection,
    RfDetrImageProcessor,
    RTDetrImageProcessor,
    RTDetrResNetConfig,
    RTDetrV2Config,
    RTDetrV2ForObjectDetection,
)

NAMES = {0: "cat", 1: "dog", 2: "N/A", 3: "bicycle"}
CLASSES: dict[str, Any] = {"id2label": NAMES, "label2id": {name: n for n, name in NAMES.items()}}
RESNET: dict[str, Any] = {"embedding_size": 8, "hidden_sizes": [8, 8, 16, 16], "depths": [1, 1, 1, 1]}
LAYERS: dict[str, Any] = {
    "encoder_layers": 1,
    "decoder_layers": 2,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 16,
    "decoder_ffn_dim": 16,
}


def rt_detr_v2(folder: Path) -> Path:
    stages = ["stage2", "stage3", "stage4"]
    config = RTDetrV2Config(
        backbone_config=RTDetrResNetConfig(**RESNET, layer_type="basic", out_features=stages),
        encoder_hidden_dim=16,
        encoder_in_channels=[8, 16, 16],
        decoder_in_channels=[16, 16, 16],
        d_model=16,
        num_queries=20,
        decoder_n_points=2,
        **LAYERS,
        **CLASSES,
    )
    torch.manual_seed(0)
    RTDetrV2ForObjectDetection(config).save_pretrained(folder)
    RTDetrImageProcessor(size={"height": 64, "width": 64}).save_pretrained(folder)
    return folder


def conditional_detr(folder: Path) -> Path:
    backbone = ResNetConfig(**RESNET, layer_type="basic", out_features=["stage4"])
    config = ConditionalDetrConfig(
        backbone_config=backbone, d_model=16, num_queries=12, init_std=0.5, **LAYERS, **CLASSES
    )
    torch.manual_seed(0)
    ConditionalDetrForObjectDetection(config).save_pretrained(folder)
    ConditionalDetrImageProcessor(size={"shortest_edge": 48, "longest_edge": 96}).save_pretrained(folder)
    return folder


def deformable_detr(folder: Path) -> Path:
    backbone = ResNetConfig(**RESNET, layer_type="basic", out_features=["stage2", "stage3", "stage4"])
    config = DeformableDetrConfig(
        backbone_config=backbone, d_model=32, num_queries=12, num_feature_levels=3, **LAYERS, **CLASSES
    )
    torch.manual_seed(0)
    DeformableDetrForObjectDetection(config).save_pretrained(folder)
    DeformableDetrImageProcessor(size={"shortest_edge": 48, "longest_edge": 96}).save_pretrained(folder)
    return folder


def rf_detr(folder: Path) -> Path:
    backbone = RfDetrDinov2Config(
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=56,
        patch_size=14,
        num_windows=1,
        out_features=["stage1", "stage2"],
    )
    config = RfDetrConfig(
        backbone_config=backbone,
        d_model=16,
        decoder_layers=2,
        decoder_ffn_dim=16,
        decoder_self_attention_heads=2,
        decoder_cross_attention_heads=2,
        num_queries=12,
        **CLASSES,
    )
    torch.manual_seed(0)
    RfDetrForObjectDetection(config).save_pretrained(folder)
    RfDetrImageProcessor(size={"height": 56, "width": 56}).save_pretrained(folder)
    return folder


FAMILY: tuple[Callable[[Path], Path], ...] = (rt_detr_v2, rf_detr, deformable_detr, conditional_detr)
