"""Our Florence-2 beside transformers', on the same random weights: seconds, peak memory, and whether they say the same.

    python benchmarks/florence2.py [--part a b c d] [--config base|large|nano] [--repeats 2] [--threads 2] [--quick]

a  8 tasks of one image: 3 beams, 64 new tokens each, from the image to the answers. transformers task by task, which
   is how people use it; as one batch; and with the image encoded once, by hand. Ours: `annotate`.
b  4 images, one task.
c  The vision tower alone, 1 and 4 images, against a large matrix product on the same cores.
d  A training step (forward, loss, backward, AdamW), dropout on, of the nano configuration and of the chosen one.

Each contender lives in a process of its own, so that its memory is its own, and loads once; then they take turns, as
machines drift. All times are printed, and the medians count. With `--config nano --quick` all of it takes a minute.

Threads sleep while they wait for each other (OMP_WAIT_POLICY=passive), unless that variable is set. The default, to
spin, is a little faster on a quiet machine; on a busy one it measures the scheduler: a step of 30 ms took 3 s.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from importlib import import_module
from importlib.metadata import version
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Literal

if Path(sys.path[0]).resolve() == Path(__file__).resolve().parent:
    sys.path[0] = str(Path(__file__).resolve().parents[1])  # not this folder, where this file would hide the package
os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # read when torch is loaded, here and in the contenders

import numpy as np
import torch
from PIL import Image

from florence2 import Florence2, Florence2Config, Processor, Task, Tokens, annotate
from florence2.config import VisionConfig
from florence2.model import IGNORED
from florence2.tokens import SPECIALS

Name = Literal["base", "large", "nano"]
TASKS = tuple(task for task in Task if not task.takes_input)  # eight
SIZE = {"nano": 96}  # pixels a side; 768 for the others
TRAINING = {"nano": (24, 96), "base": (2, 384), "large": (1, 384)}  # images a step, pixels a side
TARGET = 40  # labels of the longest answer in a training batch


@dataclass(frozen=True)
class Setting:
    """What a contender is given: weights and processor in a folder, which both sides load, and the work's size."""

    folder: Path
    config: Name
    size: int  # pixels a side
    images: int
    tokens: int
    threads: int
    quick: bool


@dataclass(frozen=True)
class Plan:
    """How often, after how many rounds that don't count, and which contenders of part a stay out (words of names)."""

    repeats: int
    warm: int
    skip: tuple[str, ...]


@dataclass(frozen=True)
class Run:
    seconds: float
    result: Any  # for comparison: token ids, a map, a loss
    resting: float  # MB before; transformers maps the weights' file, and what it has not touched yet is not in memory
    peak: float  # MB within


Work = Callable[[], Any]
Prepare = Callable[[Setting], Work]  # loads, and gives what is to be timed


# --- the same for both ------------------------------------------------------------------------------------------------


def made_tokens(count: int) -> Tokens:
    """`count` tokens: a BPE learnt from the tasks' sentences, made-up words, the specials; laid out as BART's."""
    learnt = json.loads(Tokens.train([task.sentence for task in Task], 1500).to_json())["model"]
    entries = count - len(SPECIALS)
    made_up = {f"word{n:05d}": n for n in range(len(learnt["vocab"]), entries)}
    return Tokens(learnt["vocab"] | made_up, [(left, right) for left, right in learnt["merges"]])


@torch.no_grad()
def random_model(config: Florence2Config) -> Florence2:
    """Random weights whose answers are varied, have clear winners, and don't end before the limit.

    Left alone, a new model has logits within +-2, and its answers turn on rounding. So embeddings are ten times as
    large. Positions and layers grow, queries and keys most, so far that the next token depends on more than the last
    one. What no answer may hold, </s> and the rows that pad the vocabulary, has rows of zeros: logits of 0, where the
    best have 20 and more.
    """
    torch.manual_seed(0)
    model, width = Florence2(config), config.text.d_model
    for name, weight in model.language_model.named_parameters():
        if "embed_positions" in name:
            weight.mul_(20)
        elif weight.ndim > 1 and ".layers." in name:
            weight.normal_(std=(2.5 if "q_proj" in name or "k_proj" in name else 0.83) * width**-0.5)
    rows = model.language_model.shared.weight.mul_(10)
    rows[[config.text.pad_token_id, config.text.eos_token_id]] = 0
    rows[config.image_token_id :] = 0
    return model


def save(folder: Path, config: Florence2Config, size: int) -> None:
    assert config.image_token_id is not None
    random_model(config).save_pretrained(folder)
    Processor.for_model(config, made_tokens(config.image_token_id), (size, size)).save_pretrained(folder)


def pictures(count: int) -> list[Image.Image]:
    """Coloured blots. The same ones every time."""
    noise = np.random.default_rng(0).integers(0, 256, (count, 12, 16, 3), dtype=np.uint8)
    return [Image.fromarray(pixels).resize((1024, 768), Image.Resampling.BICUBIC) for pixels in noise]


def pixels(setting: Setting) -> torch.Tensor:
    processor = Processor.from_pretrained(setting.folder)
    return replace(processor, size=(setting.size, setting.size), positions=None).images(pictures(setting.images))


# --- transformers -----------------------------------------------------------------------------------------------------


def theirs(setting: Setting) -> tuple[Any, Any]:
    transformers: Any = import_module("transformers")  # typed in part
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    model = transformers.Florence2ForConditionalGeneration.from_pretrained(setting.folder).eval()
    processor = transformers.AutoProcessor.from_pretrained(setting.folder, backend="pil")  # our pixels are PIL's, too
    return model, processor


def generate(model: Any, tokens: int, **inputs: Any) -> list[list[int]]:
    """Answers as ours have them: the start token isn't there, nor are pads."""
    ids = model.generate(
        **inputs,
        max_new_tokens=tokens,
        num_beams=3,
        do_sample=False,
        no_repeat_ngram_size=3,
        early_stopping=True,
        length_penalty=1.0,
        forced_bos_token_id=0,
        forced_eos_token_id=2,
    )
    return [[token for token in row[1:] if token != 1] for row in ids.tolist()]


def asked(processor: Any, images: list[Image.Image], tasks: list[Task]) -> Any:
    return processor(images=images, text=[f"<{task}>" for task in tasks], padding=True, return_tensors="pt")


def their_tasks_one_by_one(setting: Setting) -> Work:
    (model, processor), images = theirs(setting), pictures(1)
    return lambda: [
        row for task in TASKS for row in generate(model, setting.tokens, **asked(processor, images, [task]))
    ]


def their_batch_of_tasks(setting: Setting) -> Work:
    (model, processor), images = theirs(setting), pictures(1)
    return lambda: generate(model, setting.tokens, **asked(processor, images * len(TASKS), list(TASKS)))


def their_tasks_sharing_vision(setting: Setting) -> Work:
    """What a careful user can do: the image encoded once, then transformers' text encoder and beam search."""
    from transformers.modeling_outputs import BaseModelOutput

    (model, processor), images = theirs(setting), pictures(1)

    @torch.inference_mode()
    def work() -> list[list[int]]:
        inputs = asked(processor, images * len(TASKS), list(TASKS))
        ids, mask = inputs["input_ids"], inputs["attention_mask"]
        features = model.get_image_features(inputs["pixel_values"][:1]).pooler_output
        embedded = model.get_input_embeddings()(ids)
        image = (ids == model.config.image_token_id)[..., None]
        embedded = embedded.masked_scatter(image, features.expand(len(ids), -1, -1))
        states = model.get_encoder()(inputs_embeds=embedded, attention_mask=mask).last_hidden_state
        memory = BaseModelOutput(last_hidden_state=states)
        return generate(model, setting.tokens, encoder_outputs=memory, attention_mask=mask)

    return work


def their_images(setting: Setting) -> Work:
    (model, processor), images = theirs(setting), pictures(setting.images)
    return lambda: generate(model, setting.tokens, **asked(processor, images, [Task.CAPTION] * len(images)))


def their_tower(setting: Setting) -> Work:
    (model, _), values = theirs(setting), pixels(setting)
    tower = model.model.vision_tower
    return torch.inference_mode()(lambda: tower(values).last_hidden_state.permute(0, 2, 3, 1).numpy())


def their_training(setting: Setting) -> Work:
    model, _ = theirs(setting)
    values, ids, mask, labels = training_batch(setting)
    count = model.get_image_features(values[:1]).pooler_output.shape[1]
    image = torch.full((len(ids), count), model.config.image_token_id)
    ids, mask = torch.cat([image, ids], dim=1), torch.cat([torch.ones_like(image), mask], dim=1)

    def loss() -> Any:
        return model(pixel_values=values, input_ids=ids, attention_mask=mask, labels=labels).loss

    return training(model, loss)


# --- ours -------------------------------------------------------------------------------------------------------------


def ours(setting: Setting) -> tuple[Florence2, Processor]:
    return Florence2.from_pretrained(setting.folder), Processor.from_pretrained(setting.folder)


def answered(setting: Setting, images: int, tasks: list[Task]) -> Work:
    (model, processor), given = ours(setting), pictures(images)
    return lambda: [
        list(answer.token_ids)
        for answers in annotate(model, processor, given, tasks, num_beams=3, max_new_tokens=setting.tokens)
        for answer in answers
    ]


def our_tasks(setting: Setting) -> Work:
    return answered(setting, 1, list(TASKS))


def our_images(setting: Setting) -> Work:
    return answered(setting, setting.images, [Task.CAPTION])


def our_tower(setting: Setting) -> Work:
    (model, _), values = ours(setting), pixels(setting)
    return torch.inference_mode()(lambda: model.vision_tower(values)[-1].numpy())


def our_training(setting: Setting) -> Work:
    model, _ = ours(setting)
    values, ids, mask, labels = training_batch(setting)
    return training(model, lambda: model.loss(model.encode_image(values), ids, mask, labels))


# --- training, and the cores' limit -----------------------------------------------------------------------------------


def training_batch(setting: Setting) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Pixels, prompts with their mask, labels: unequal prompts and answers of half to all of TARGET."""
    processor, dice = Processor.from_pretrained(setting.folder), torch.Generator().manual_seed(0)
    tasks = [TASKS[n % len(TASKS)] for n in range(setting.images)]
    ids, mask = processor.prompts([task.sentence for task in tasks])
    labels = torch.randint(4, 1000, (setting.images, TARGET), generator=dice)
    lengths = torch.randint(TARGET // 2, TARGET + 1, (setting.images, 1), generator=dice)
    return pixels(setting), ids, mask, labels.masked_fill(torch.arange(TARGET) >= lengths, IGNORED)


def training(model: Any, loss: Callable[[], Any]) -> Work:
    """One step. Gives the loss that the model had at first, without dropout: that one must be the same for both."""
    with torch.no_grad():
        first = float(loss())
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    model.train()

    def work() -> float:
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()
        return first

    return work


def matrix_product(setting: Setting) -> Work:
    """The most FLOP/s of products of square matrices: what these cores can do at all."""
    sides = (1024,) if setting.quick else (2048, 3072, 4096)

    def work() -> float:
        rates = []
        for side in sides:
            a, b = torch.randn(2, side, side)
            for _ in range(3):
                start = time.perf_counter()
                torch.mm(a, b)
                rates.append(2 * side**3 / (time.perf_counter() - start))
        return max(rates)

    return work


def tower_flops(config: VisionConfig, side: int) -> dict[str, int]:
    """FLOPs of an image of `side` pixels, by kind; a multiply-add counts as two. Norms, GELU, softmax and sums do not
    count."""
    flops = {"linear layers": 0, "attention": 0, "convolutions": 0}
    before, window = config.in_channels, config.window_size
    for stage, (width, depth) in enumerate(zip(config.embed_dim, config.depths, strict=True)):
        kernel = config.patch_size[stage]
        side = (side + 2 * config.patch_padding[stage] - kernel) // config.patch_stride[stage] + 1
        tokens, padded = side**2, (-(-side // window) * window) ** 2
        hidden = int(width * config.mlp_ratio)
        linear = (tokens + padded) * 4 * width * width + 2 * tokens * 2 * width * hidden  # qkv and proj; two MLPs
        attention = 2 * padded * window**2 * width + 2 * tokens * width // config.num_groups[stage] * width
        flops["linear layers"] += 2 * depth * linear
        flops["attention"] += 2 * depth * attention
        flops["convolutions"] += 2 * (depth * 4 * tokens * width * 9 + tokens * width * before * kernel**2)
        before = width
    return flops


# --- taking turns -----------------------------------------------------------------------------------------------------


def turns(contenders: Mapping[str, Prepare], setting: Setting, plan: Plan) -> dict[str, list[Run]]:
    """Runs of each contender, all of them in turns."""
    context = multiprocessing.get_context("spawn")
    pipes: dict[str, Connection] = {}
    workers = []
    for name, prepare in contenders.items():
        pipes[name], end = context.Pipe()
        workers.append(context.Process(target=serve, args=(prepare, setting, end), daemon=True))
        workers[-1].start()
        end.close()  # or its death would not be heard
    runs: dict[str, list[Run]] = {name: [] for name in contenders}
    try:
        for name in contenders:
            pipes[name].recv()  # it is ready
        for _ in range(plan.warm + plan.repeats):
            for name in contenders:
                pipes[name].send("go")
                runs[name].append(pipes[name].recv())
    except EOFError:
        raise SystemExit(f"{name} failed; see above") from None
    finally:
        for worker in workers:
            worker.terminate()
            worker.join()
    return {name: done[plan.warm :] for name, done in runs.items()}


def serve(prepare: Prepare, setting: Setting, pipe: Connection) -> None:
    torch.set_num_threads(setting.threads)
    work = prepare(setting)
    pipe.send("ready")
    while pipe.recv():
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins again
        resting, start = memory("VmRSS"), time.perf_counter()
        result = work()
        pipe.send(Run(time.perf_counter() - start, result, resting, memory("VmHWM")))


def memory(name: str) -> float:
    """MB of this process, as the kernel counts it."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1e3 for line in lines if line.startswith(name + ":"))


# --- the tables -------------------------------------------------------------------------------------------------------


def table(title: str, runs: Mapping[str, list[Run]]) -> None:
    medians = {name: statistics.median(run.seconds for run in done) for name, done in runs.items()}
    print(f"\n{title}\n{'':32s} {'median s':>9s} {'x ours':>7s} {'resting MB':>11s} {'peak MB':>8s}   all, s")
    for name, done in runs.items():
        resting, peak = (max(getattr(run, field) for run in done) for field in ("resting", "peak"))
        values = " ".join(f"{run.seconds:.3f}" for run in done)
        ratio = medians[name] / medians["ours"]
        print(f"{name:32s} {medians[name]:9.3f} {ratio:7.2f} {resting:11.0f} {peak:8.0f}   {values}", flush=True)


def compare_tokens(runs: Mapping[str, list[Run]], batch: str) -> None:
    """How many answers each contender has in common with ours. Ends the program if those of `batch` differ."""
    rows = {name: done[-1].result for name, done in runs.items()}
    lengths = sorted({len(row) for row in rows["ours"]})
    same = {name: sum(a == b for a, b in zip(rows[name], rows["ours"], strict=True)) for name in rows}
    for name in rows:
        if name != "ours":
            print(f"answers equal to ours, token for token: {name}: {same[name]} of {len(rows[name])}")
    print(
        f"tokens in an answer: {' '.join(map(str, lengths))}; different answers: {len(set(map(tuple, rows['ours'])))}"
    )
    if batch in rows and same[batch] != len(rows[batch]):
        raise SystemExit(f"{batch} and ours gave different tokens: their times can't be compared")


def part_a(setting: Setting, plan: Plan) -> None:
    batch = "transformers, one batch"
    contenders: dict[str, Prepare] = {
        "transformers, task by task": their_tasks_one_by_one,
        batch: their_batch_of_tasks,
        "transformers, vision by hand": their_tasks_sharing_vision,
        "ours": our_tasks,
    }
    skipped = {name for name in contenders if name != "ours" and any(word in name for word in plan.skip)}
    runs = turns({name: contenders[name] for name in contenders if name not in skipped}, setting, plan)
    table(f"(a) one image, {len(TASKS)} tasks: {described(setting)}, 3 beams, {setting.tokens} tokens each", runs)
    compare_tokens(runs, batch)


def part_b(setting: Setting, plan: Plan) -> None:
    setting = replace(setting, images=4)
    runs = turns({"transformers": their_images, "ours": our_images}, setting, plan)
    table(f"(b) {setting.images} images, one task: {described(setting)}, 3 beams, {setting.tokens} tokens each", runs)
    compare_tokens(runs, "transformers")


def part_c(setting: Setting, plan: Plan) -> None:
    kinds = tower_flops(Florence2Config.preset(setting.config).vision, setting.size)
    flops = sum(kinds.values())
    contenders = {"transformers": their_tower, "ours": our_tower, "matrix product": matrix_product}
    for images in (1, 4):
        setting = replace(setting, images=images)
        runs = turns(contenders, setting, often(plan))
        limit = max(run.result for run in runs.pop("matrix product"))
        table(f"(c) the vision tower, {images} images: {described(setting)}", runs)
        one, other = (runs[name][-1].result for name in runs)
        parts = ", ".join(f"{kind} {count / flops:.1%}" for kind, count in kinds.items())
        print(f"{flops / 1e9:.2f} GFLOP an image ({parts}); matrix product {limit / 1e9:.1f} GFLOP/s")
        for name, done in runs.items():
            rate = images * flops / min(run.seconds for run in done)  # the best, as the limit is the best
            print(f"{name:32s} {rate / 1e9:6.1f} GFLOP/s, {rate / limit:.1%} of the limit")
        print(f"largest difference / largest value of the maps: {np.abs(one - other).max() / np.abs(one).max():.1e}")


def part_d(setting: Setting, plan: Plan) -> None:
    images, size = TRAINING[setting.config]
    setting = replace(setting, images=images, size=size)
    runs = turns({"transformers": their_training, "ours": our_training}, setting, often(plan))
    table(
        f"(d) a training step: {described(setting)}, batch {images}, answers of {TARGET // 2} to {TARGET} tokens", runs
    )
    losses = [runs[name][0].result for name in runs]
    print(f"loss before the first step, without dropout: {losses[0]:.5f} and {losses[1]:.5f}")
    if abs(losses[0] - losses[1]) > 1e-4 * losses[0]:
        raise SystemExit("the losses differ: so does the work")


def often(plan: Plan) -> Plan:
    """For what takes seconds."""
    return replace(plan, repeats=max(plan.repeats, 3), warm=1)


def described(setting: Setting) -> str:
    return f"{setting.config}, {setting.size} px, fp32, {setting.threads} threads"


PARTS: dict[str, Callable[[Setting, Plan], None]] = {"a": part_a, "b": part_b, "c": part_c, "d": part_d}


def machine() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    cpu = next((line.split(": ")[1] for line in lines if line.startswith("model name")), "unknown CPU")
    load = ", ".join(f"{value:.2f}" for value in os.getloadavg())
    versions = ", ".join(f"{package} {version(package)}" for package in ("torch", "transformers"))
    waiting = f"threads wait: {os.environ['OMP_WAIT_POLICY']}"
    return f"{cpu}, {os.cpu_count()} cores, {versions}, {waiting}, load {load}"


def settings(given: argparse.Namespace, folder: Path) -> Iterator[tuple[str, Setting]]:
    """Each part that was asked for and its setting; training has the nano configuration as well."""
    for part in given.part:
        for config in dict.fromkeys(["nano", given.config] if part == "d" else [given.config]):
            size, here = SIZE.get(config, 768), folder / config
            if not here.exists():
                save(here, Florence2Config.preset(config), size)
            yield part, Setting(here, config, size, 1, 16 if given.quick else 64, given.threads, given.quick)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--config", choices=TRAINING, default="base")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--quick", action="store_true", help="fewer tokens and smaller matrices: does it work at all?")
    parser.add_argument(
        "--skip", nargs="+", default=[], metavar="NAME", help='in part a: --skip "task by task" "by hand"'
    )
    given = parser.parse_args()
    plan = Plan(given.repeats, int(given.quick), tuple(given.skip))
    print(machine(), flush=True)
    with tempfile.TemporaryDirectory() as temporary:
        for part, setting in settings(given, Path(temporary)):
            PARTS[part](setting, plan)


if __name__ == "__main__":
    main()
