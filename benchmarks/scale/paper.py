"""126 million images on paper: GPU-hours by model and round of fld.yaml, from FLOPs an image over a stated GPU.

    python -m benchmarks.scale.paper

Florence-2's FLOPs are counted by running it without memory (on the meta device); others are parameters x tokens x 2,
or the models' own papers'. What an image holds (regions, crops, words) is assumed, and stated here.
"""

from __future__ import annotations

from dataclasses import dataclass

IMAGES = 126e6
GPU = {"bfloat16": 312e12, "float32": 19.5e12}  # an A100's peak, dense
USED = 0.35  # of that, where much goes through at once; assumed
USED_DECODING = 0.05  # likewise where words come one by one, which waits for memory
PRICE = 2.0  # US dollars a GPU-hour; assumed
REGIONS, CANDIDATES = 10, 3  # objects of an image, and texts of which each chooses one
PROMPT, WORDS, LONG = 12, 20, 150  # tokens of a prompt, a short answer and a long one
TRAINED = 20_000 * 64  # images of a round's training, as fld.yaml has it
TASKS = 4  # examples of each


@dataclass(frozen=True)
class Stage:
    """FLOPs an image: of what goes through at once, and of words that come one by one."""

    name: str
    flops: float
    decoding: float = 0.0
    precision: str = "bfloat16"
    basis: str = ""

    @property
    def hours(self) -> float:
        """GPU-hours of all images."""
        rate = GPU[self.precision]
        return IMAGES * (self.flops / (rate * USED) + self.decoding / (rate * USED_DECODING)) / 3600


@dataclass(frozen=True)
class Florence:
    """FLOPs of a Florence-2: its tower over one image, its encoder over that and a prompt, its decoder a token."""

    tower: float
    encoder: float
    token: float

    @classmethod
    def counted(cls, preset: str) -> Florence:
        import torch
        from torch.utils.flop_counter import FlopCounterMode

        from florence2.config import PRESETS
        from florence2.model import Florence2

        with torch.device("meta"), torch.no_grad():
            model, flops = Florence2(PRESETS[preset]), []
            prompt, word = torch.zeros(1, PROMPT, dtype=torch.long), torch.zeros(1, 1, dtype=torch.long)
            with FlopCounterMode(display=False) as counted:
                features = model.encode_image(torch.zeros(1, 3, 768, 768))
            flops.append(counted.get_total_flops())
            with FlopCounterMode(display=False) as counted:
                memory = model.encode(features, prompt)
            flops.append(counted.get_total_flops())
            with FlopCounterMode(display=False) as counted:
                model.head(model.decode(memory, word))  # with keys and values of the memory made anew: kept, in truth
            keys = (
                2 * 2 * memory.states.shape[1] * memory.states.shape[2] ** 2 * len(model.language_model.decoder.layers)
            )
            flops.append(counted.get_total_flops() - keys)
        return cls(*map(float, flops))

    def answers(self, count: int, tokens: int) -> tuple[float, float]:
        """FLOPs of so many answers about one image, at once and one by one."""
        return self.tower + count * self.encoder, count * tokens * self.token

    def examples(self, count: int, tokens: int) -> float:
        """Of learning so many answers about an image: a step back costs two forward."""
        return 3 * (self.tower + count * (self.encoder + tokens * self.token))


def stages(large: Florence) -> list[Stage]:
    """Those of fld.yaml that want a GPU, in order."""
    vision, text = 2 * 0.43e9 * 729, 2 * 0.45e9 * 64  # SigLIP 2 so400m, 384 px by 14, and its 64 tokens
    owl = 2 * 86e6 * 3600 + 12 * 4 * 3600**2 * 768
    asked = 2 * 0.4e9 * 3072 + 2 * 4.0e9 * (768 + 300)
    return [
        Stage("detector (RT-DETR v2 R101)", 259e9, 0, "float32", "its paper, at 640 px"),
        Stage("open_detector (OWLv2 base)", owl, 0, "bfloat16", "86 M x 3600 tokens, and attention"),
        Stage("captioner (Florence-2 large)", *large.answers(2 + REGIONS, WORDS), basis="counted; 12 answers"),
        Stage(
            "contrastive (SigLIP 2 so400m)",
            (1 + REGIONS) * vision + REGIONS * CANDIDATES * text,
            basis="11 views of 729 tokens, 30 texts",
        ),
        Stage("annotator (Qwen3-VL 4B)", asked, 2 * 4.0e9 * LONG, basis="3072 patches, 1068 tokens, 150 words"),
        Stage("aggregator (the same)", 2 * 4.0e9 * 600, 2 * 4.0e9 * LONG, basis="600 tokens, 150 words"),
        Stage("grounder (Grounding DINO base)", 3 * 1.1e12, 0, "float32", "3 texts; Swin-B at 800 x 1333, estimated"),
        Stage("segmenter (SAM 2.1 large)", 2 * 0.22e9 * 4096 + REGIONS * 0.02e12, basis="4096 tokens, 10 prompts"),
        Stage("text_contrastive (SigLIP 2)", vision + 3 * text, basis="1 view, 3 texts"),
        Stage("verifier (Florence-2 large)", large.tower + 2 * large.encoder, basis="counted; 2 texts"),
    ]


def table() -> str:
    base, large = Florence.counted("base"), Florence.counted("large")
    again = Stage("reannotate (Florence-2 base)", *base.answers(8, 60), basis="counted; 8 answers of 60 tokens")
    lines = ["| | TFLOP an image | of these word by word | precision | A100-hours | $ | from |", "|---" * 7 + "|"]
    annotate = stages(large)
    for one in (*annotate, again):
        lines.append(
            f"| {one.name} | {(one.flops + one.decoding) / 1e12:.2f} | {one.decoding / 1e12:.2f} | {one.precision} | "
            f"{one.hours:,.0f} | {one.hours * PRICE:,.0f} | {one.basis} |"
        )
    total = sum(one.hours for one in annotate)
    lines.append(f"| **round 0** | | | | **{total:,.0f}** | **{total * PRICE:,.0f}** | |")
    for name, model in (("base", base), ("large", large)):
        each = model.examples(TASKS, 60)
        for what, images in (("20,000 steps of 64 images", TRAINED), ("126 M images once", IMAGES)):
            hours = images * each / (GPU["bfloat16"] * USED) / 3600
            lines.append(
                f"| training, {name}, {what} | {each / 1e12:.2f} | | bfloat16 | {hours:,.0f} | {hours * PRICE:,.0f} | "
                "counted; 4 tasks of 60 tokens, x 3 |"
            )
    return "\n".join(lines)


if __name__ == "__main__":
    print(table())
