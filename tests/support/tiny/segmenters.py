"""SAM's family, for images and for videos: of the latter's checkpoints the part for images is used."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from transformers import (
    Sam2Config,
    Sam2HieraDetConfig,
    Sam2ImageProcessor,
    Sam2Model,
    Sam2Processor,
    Sam2VideoConfig,
    Sam2VideoModel,
    Sam2VisionConfig,
    Sam3Config,
    Sam3ImageProcessor,
    Sam3TrackerConfig,
    Sam3TrackerModel,
    Sam3TrackerProcessor,
    Sam3TrackerVideoConfig,
    Sam3VideoConfig,
    Sam3VideoModel,
    Sam3VisionConfig,
    Sam3ViTConfig,
    SamConfig,
    SamHQConfig,
    SamHQModel,
    SamHQProcessor,
    SamImageProcessor,
    SamModel,
    SamProcessor,
)

SIDE = 64  # px, of what the models see
PATCH = 8  # px, and a fourth of it a pixel of their masks, of which a side has 32
WIDTH = 32
LEVELS = [[32, 32], [16, 16], [8, 8]]

PROMPTS: dict[str, Any] = {"hidden_size": WIDTH, "image_size": SIDE, "patch_size": PATCH}
DECODER: dict[str, Any] = {"hidden_size": WIDTH, "mlp_dim": WIDTH, "num_attention_heads": 2, "iou_head_hidden_dim": 16}
ENCODER: dict[str, Any] = {
    "hidden_size": WIDTH,
    "output_channels": WIDTH,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "global_attn_indexes": [1],
    "window_size": 4,
    "image_size": SIDE,
    "patch_size": PATCH,
    "mlp_ratio": 1.0,
    "num_pos_feats": WIDTH // 2,
}
MEMORY: dict[str, Any] = {
    "memory_attention_hidden_size": WIDTH,
    "memory_attention_num_layers": 1,
    "memory_attention_feed_forward_hidden_size": WIDTH,
    "memory_attention_rope_feat_sizes": LEVELS[-1],
    "memory_encoder_hidden_size": WIDTH,
    "memory_encoder_output_channels": 16,
    "memory_fuser_embed_dim": WIDTH,
    "memory_fuser_intermediate_dim": WIDTH,
    "mask_downsampler_embed_dim": WIDTH,
}


def sam(folder: Path) -> Path:
    config = SamConfig(vision_config=ENCODER, prompt_encoder_config=PROMPTS, mask_decoder_config=DECODER)
    return _saved(SamModel, config, SamProcessor(_padding()), folder)


def sam_hq(folder: Path) -> Path:
    decoder = {**DECODER, "vit_dim": WIDTH}
    config = SamHQConfig(vision_config=ENCODER, prompt_encoder_config=PROMPTS, mask_decoder_config=decoder)
    return _saved(SamHQModel, config, SamHQProcessor(_padding()), folder)


def sam2(folder: Path) -> Path:
    config = Sam2Config(vision_config=_hiera(), prompt_encoder_config=PROMPTS, mask_decoder_config=DECODER)
    return _saved(Sam2Model, config, Sam2Processor(_squeezing(Sam2ImageProcessor)), folder)


def sam2_video(folder: Path) -> Path:
    """What the hub has under SAM 2's name."""
    config = Sam2VideoConfig(
        vision_config=_hiera(), prompt_encoder_config=PROMPTS, mask_decoder_config=DECODER, image_size=SIDE, **MEMORY
    )
    _saved(Sam2VideoModel, config, _squeezing(Sam2ImageProcessor), folder)
    _edit(folder / "preprocessor_config.json", image_processor_type="Sam2ImageProcessorFast")
    (folder / "processor_config.json").write_text(json.dumps({"processor_class": "Sam2VideoProcessor"}))
    return folder


def sam3_tracker(folder: Path) -> Path:
    config = Sam3TrackerConfig(vision_config=_vit(), prompt_encoder_config=PROMPTS, mask_decoder_config=DECODER)
    return _saved(Sam3TrackerModel, config, Sam3TrackerProcessor(_squeezing(Sam3ImageProcessor)), folder)


def sam3_video(folder: Path) -> Path:
    """What the hub has under SAM 3's name: detector and tracker with one encoder."""
    layers: dict[str, Any] = {"hidden_size": WIDTH, "num_layers": 1, "num_attention_heads": 2}
    detector = Sam3Config(
        vision_config=_vit(),
        text_config={
            "vocab_size": 50,
            "hidden_size": 16,
            "intermediate_size": 16,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "projection_dim": 16,
            "bos_token_id": 0,
            "eos_token_id": 1,
        },
        geometry_encoder_config={**layers, "intermediate_size": WIDTH},
        detr_encoder_config={**layers, "intermediate_size": WIDTH},
        detr_decoder_config={**layers, "intermediate_size": WIDTH, "num_queries": 4},
        mask_decoder_config={"hidden_size": WIDTH, "num_attention_heads": 2},
    )
    tracker = Sam3TrackerVideoConfig(
        vision_config=_vit(), prompt_encoder_config=PROMPTS, mask_decoder_config=DECODER, image_size=SIDE, **MEMORY
    )
    config = Sam3VideoConfig(detector_config=detector.to_dict(), tracker_config=tracker.to_dict())
    _saved(Sam3VideoModel, config, Sam3TrackerProcessor(_squeezing(Sam3ImageProcessor)), folder)
    _edit(folder / "processor_config.json", processor_class="Sam3VideoProcessor")
    return folder


FAMILIES = {maker.__name__: maker for maker in (sam, sam_hq, sam2, sam2_video, sam3_tracker, sam3_video)}


def _saved(kind: Any, config: Any, processor: Any, folder: Path) -> Path:
    torch.manual_seed(0)
    model = kind(config)
    _enliven(model)
    model.save_pretrained(folder, save_original_format=False)  # otherwise a part of SAM 3's names are prefixed twice
    processor.save_pretrained(folder)
    return folder


def _edit(file: Path, **changes: str) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def _enliven(model: Any) -> None:
    """As they begin, models answer the same to every prompt, with logits of 0.001: too little to tell anything apart.

    Below zero on the average, so that masks differ in size.
    """
    for name, weights in model.named_parameters():
        is_last = "output_hypernetworks" in name and "proj_out" in name
        if weights.ndim > 1:
            inputs = weights[0].numel() if "embed" not in name and "token" not in name else 1
            torch.nn.init.normal_(weights, std=2.0 if is_last else 1.0 / inputs**0.5)
        elif is_last:
            torch.nn.init.constant_(weights, -2.0)
        elif name.endswith("iou_prediction_head.proj_out.bias"):
            torch.nn.init.constant_(weights, 0.7)


def _hiera() -> Sam2VisionConfig:
    backbone = Sam2HieraDetConfig(
        hidden_size=8,
        image_size=[SIDE, SIDE],
        patch_kernel_size=[3, 3],
        patch_stride=[2, 2],
        patch_padding=[1, 1],
        blocks_per_stage=[1, 1, 2, 1],
        embed_dim_per_stage=[8, 16, 24, 32],
        num_attention_heads_per_stage=[1, 1, 2, 2],
        window_size_per_stage=[4, 4, 4, 4],
        window_positional_embedding_background_size=[4, 4],
        global_attention_blocks=[3],
        mlp_ratio=2.0,
    )
    return Sam2VisionConfig(
        backbone_config=backbone,
        backbone_channel_list=[32, 24, 16, 8],
        backbone_feature_sizes=LEVELS,
        fpn_hidden_size=WIDTH,
    )


def _vit() -> Sam3VisionConfig:
    backbone = Sam3ViTConfig(
        hidden_size=WIDTH,
        intermediate_size=WIDTH,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=SIDE,
        pretrain_image_size=SIDE,
        patch_size=PATCH,
        window_size=4,
        global_attn_indexes=[1],
    )
    return Sam3VisionConfig(backbone_config=backbone, fpn_hidden_size=WIDTH, backbone_feature_sizes=LEVELS)


def _padding() -> SamImageProcessor:
    return SamImageProcessor(
        size={"longest_edge": SIDE},
        pad_size={"height": SIDE, "width": SIDE},
        mask_size={"longest_edge": SIDE // 2},
        mask_pad_size={"height": SIDE // 2, "width": SIDE // 2},
    )


def _squeezing(kind: Any) -> Any:
    return kind(size={"height": SIDE, "width": SIDE}, mask_size={"height": SIDE // 2, "width": SIDE // 2})
