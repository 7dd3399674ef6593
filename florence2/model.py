"""Florence-2: an image and a question in, a sentence with locations out. Vision tower, projector, language model."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, overload

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from florence2.bart import Bart
from florence2.checkpoint import load_into, locate, read_config, write
from florence2.config import Florence2Config
from florence2.davit import DaViT
from florence2.errors import Florence2Error
from florence2.projector import Projector

IGNORED = -100  # the label of a position that makes no loss


class Florence2(nn.Module):
    """Parameters bear transformers' names, without its leading `model.`; the embedding is the head, too.

    A new model has random weights (normal, `text.init_std`; norms at one, biases at zero). In eval mode.
    """

    def __init__(self, config: Florence2Config) -> None:
        super().__init__()
        self.config = config
        self.vision_tower = DaViT(config.vision)
        self.multi_modal_projector = Projector(config.vision)
        self.language_model = Bart(config.text)
        self.apply(self.initialise)
        self.eval()

    def initialise(self, module: nn.Module) -> None:
        std = self.config.text.init_std
        if isinstance(module, nn.Linear | nn.Conv2d | nn.Embedding):
            nn.init.normal_(module.weight, std=std)
        if isinstance(module, nn.Linear | nn.Conv2d) and module.bias is not None:
            nn.init.zeros_(module.bias)
        if isinstance(module, nn.Embedding) and module.padding_idx is not None:
            nn.init.zeros_(module.weight[module.padding_idx].detach())

    @classmethod
    def from_pretrained(cls, path_or_hub_id: str | Path, dtype: torch.dtype = torch.float32) -> Florence2:
        """From a folder or a hub's id, in Microsoft's two forms or transformers'. CheckpointError if it is neither."""
        if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
            raise Florence2Error(f"expected a dtype as torch.bfloat16, got {dtype!r}")
        folder = locate(path_or_hub_id)
        with torch.device("meta"):  # no memory, no random start: the tensors come from the file
            model = cls(read_config(folder))
        load_into(model, folder)
        return model.to(dtype)

    def save_pretrained(self, path: str | Path) -> None:
        """In transformers' form: Florence2ForConditionalGeneration.from_pretrained takes it."""
        write(self.state_dict(), self.config, Path(path))

    def checkpoint_gradients(self, on: bool = True) -> None:
        """Training keeps the activations of no layer and computes them again: less memory, one more forward pass."""
        for module in (self.vision_tower, self.language_model.encoder, self.language_model.decoder):
            module.checkpointing = on

    @property
    def dtype(self) -> torch.dtype:
        return self.language_model.shared.weight.dtype

    @property
    def device(self) -> torch.device:
        return self.language_model.shared.weight.device

    @overload
    def encode_image(self, pixel_values: Tensor, pyramid: Literal[False] = False) -> Tensor: ...
    @overload
    def encode_image(self, pixel_values: Tensor, pyramid: Literal[True]) -> list[Tensor]: ...
    def encode_image(self, pixel_values: Tensor, pyramid: bool = False) -> Tensor | list[Tensor]:
        """[B, 3, height, width], normalised -> features [B, N, d], N = 577 at 768 px.

        `pyramid`: the maps of the four stages instead, [B, C, H, W] with strides 4, 8, 16, 32 (nano: 4, 8, 16, 16): the
        tower as a backbone. ImageError for features of an image that is larger than the position tables.
        """
        maps = self.vision_tower(pixel_values.to(self.dtype))
        if pyramid:
            return [x.permute(0, 3, 1, 2) for x in maps]
        return self.multi_modal_projector(maps[-1])

    def encode(self, features: Tensor, input_ids: Tensor, attention_mask: Tensor | None = None) -> Memory:
        """Image features [B, N, d] and prompts [B, L] read together. Memory has N + L tokens a row."""
        embedded = torch.cat([features, self.language_model.embed(input_ids)], dim=1)
        mask = None
        if attention_mask is not None and not bool(attention_mask.all()):
            mask = F.pad(attention_mask.bool(), (features.shape[1], 0), value=True)
        return Memory(self.language_model.encoder(embedded, mask), mask)

    def decode(self, memory: Memory, decoder_input_ids: Tensor) -> Tensor:
        """All positions of an answer at once: [B, T] -> hidden states [B, T, d]."""
        return self.language_model.decoder(self.language_model.embed(decoder_input_ids), memory.states, memory.mask)

    def head(self, hidden: Tensor) -> Tensor:
        """[..., d] -> logits [..., vocabulary]."""
        return F.linear(hidden, self.language_model.shared.weight)

    def forward(
        self,
        pixel_values: Tensor,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        decoder_input_ids: Tensor | None = None,
    ) -> Tensor:
        """Logits [B, T, vocabulary]. `input_ids` [B, L] hold the prompt alone: the image is put in front of it here."""
        if decoder_input_ids is None:
            decoder_input_ids = input_ids.new_full((len(input_ids), 1), self.config.text.decoder_start_token_id)
        memory = self.encode(self.encode_image(pixel_values), input_ids, attention_mask)
        return self.head(self.decode(memory, decoder_input_ids))

    def loss(self, features: Tensor, input_ids: Tensor, attention_mask: Tensor | None, labels: Tensor) -> Tensor:
        """Mean cross-entropy over the labels [B, T] that are not -100.

        `features` [B, N, d] has a row for each row of labels: rows of one image share it as `features[image_of_row]`.
        """
        hidden = self.decode(self.encode(features, input_ids, attention_mask), self.shifted(labels))
        counted = labels != IGNORED
        return F.cross_entropy(self.head(hidden[counted]).float(), labels[counted])

    def log_likelihood(
        self, features: Tensor, input_ids: Tensor, attention_mask: Tensor | None, labels: Tensor
    ) -> Tensor:
        """log p(labels | image, prompt) [B]: the sum over each row's labels [B, T] that are not -100.

        As in the loss, rows that pad the vocabulary have their share of the probability; where `annotate` chooses a
        token they have none.
        """
        hidden = self.decode(self.encode(features, input_ids, attention_mask), self.shifted(labels))
        rows = []
        for states, row in zip(hidden, labels, strict=True):  # a row at a time: logits are 60 times as wide as states
            counted = row != IGNORED
            rows.append(-F.cross_entropy(self.head(states[counted]).float(), row[counted], reduction="sum"))
        return torch.stack(rows) if rows else features.new_zeros(0, dtype=torch.float32)

    def shifted(self, labels: Tensor) -> Tensor:
        """What the decoder reads while it writes the labels: the start token, then all of them but the last."""
        text = self.config.text
        start = labels.new_full((len(labels), 1), text.decoder_start_token_id)
        before = torch.cat([start, labels[:, :-1]], dim=1)
        return before.masked_fill(before == IGNORED, text.pad_token_id)


class Memory:
    """What the decoder looks at: states [B, S, d], and where there is something, [B, S] (None: everywhere)."""

    def __init__(self, states: Tensor, mask: Tensor | None) -> None:
        self.states, self.mask = states, mask
