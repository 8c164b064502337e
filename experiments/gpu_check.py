"""Check and time the image path on this machine: frames in, rewards out, against the usual ways.

    python experiments/gpu_check.py --json gpu.json     # on a machine with CUDA, some minutes
    python experiments/gpu_check.py --device cpu --models ViT-B/32 --batches 8 --backends torch openvino
    python experiments/gpu_check.py --device cpu --tiny     # the same code on small towers, seconds

Weights are random and nothing is downloaded: speed and equality don't depend on what a tower has learnt.
Everything in one table row is timed in turns, in one process, on the same frames; times are medians, of
wall time with the device idle before and after on CUDA, of CPU time on a CPU. "Own" is the encoder as its
package computes it; "paper" is the recipe of VLM-RM's code (resize as floats, encode, D x D matrix), "tutorial"
is PIL's pipeline and one frame at a time, both with the own encoder in the same dtype. Exit code 1 if a check fails.
"""

import argparse
import json
import platform
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from copy import deepcopy
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import open_clip
import torch
from PIL import Image
from torch import Tensor, nn
from torchvision.transforms import v2

from vlmrm_wrap import CLIPRewardModel, FrameScores
from vlmrm_wrap.encoders.fast_vit import fast_vit
from vlmrm_wrap.encoders.openai_clip import OPENAI_MEAN, OPENAI_STD, import_clip
from vlmrm_wrap.encoders.protocol import TwoTowers
from vlmrm_wrap.preprocess import FramePreprocessor

Frames = np.ndarray
ALPHA = 0.5
DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


def openai_vit(*sizes: int) -> nn.Module:
    return import_clip().model.VisionTransformer(*sizes)


def open_clip_vit(size: int, patch: int, width: int, layers: int, heads: int, ratio: float, dim: int) -> nn.Module:
    vit, norm = open_clip.transformer.VisionTransformer, open_clip.transformer.LayerNormFp32
    return vit(size, patch, width, layers, heads, ratio, output_dim=dim, norm_layer=norm)


# size, patch, width, layers, heads, (ratio,) dimensions
TOWERS: dict[str, Callable[[], nn.Module]] = {
    "ViT-B/32": partial(openai_vit, 224, 32, 768, 12, 12, 512),
    "ViT-L/14": partial(openai_vit, 224, 14, 1024, 24, 16, 768),
    "ViT-bigG-14": partial(open_clip_vit, 224, 14, 1664, 48, 16, 4.9231, 1280),
}
TINY = {
    "tiny": partial(openai_vit, 64, 16, 128, 3, 2, 32),
    "tiny, open_clip": partial(open_clip_vit, 32, 8, 96, 2, 3, 3.0, 48),
}


class Encoder(TwoTowers):
    """A tower with random weights behind our protocol; sentences are random directions."""

    mean, std, interpolation, resize_mode, context_length = OPENAI_MEAN, OPENAI_STD, "bicubic", "squash", 77

    def __init__(self, tower: nn.Module, name: str, device: str, dtype: str, backend: str = "torch") -> None:
        self.name, self.device, self.dtype = name, torch.device(device), DTYPES[dtype]
        self.image_size, self.embed_dim = image_size(tower), tower.proj.shape[1]
        self._model = SimpleNamespace(visual=fast_vit(tower).to(self.device, self.dtype))
        assert self._model.visual is not tower
        if backend == "openvino":
            self.use_openvino()

    def _embed_images(self, images: Tensor) -> Tensor:
        return self._model.visual(images)

    def _embed_texts(self, texts: list[str]) -> Tensor:
        seeds = [torch.Generator().manual_seed(len(text)) for text in texts]
        return torch.stack([torch.randn(self.embed_dim, generator=seed) for seed in seeds])


class Own:
    """The same tower as its package computes it, and the two usual recipes around it."""

    def __init__(self, tower: nn.Module, device: str, dtype: str, encoder: Encoder) -> None:
        self.size, self.device, self.dtype = encoder.image_size, torch.device(device), DTYPES[dtype]
        self.tower = deepcopy(tower)
        if dtype != "float32":  # linear and convolution in half precision, norms in float32: as both packages do
            open_clip.model.convert_weights_to_lp(self.tower, self.dtype)
        self.tower.to(self.device)
        resize = v2.Resize([self.size, self.size], v2.InterpolationMode.BICUBIC, antialias=True)
        self._transform = v2.Compose([resize, v2.Normalize(OPENAI_MEAN, OPENAI_STD)])
        self._pil = import_clip().clip._transform(self.size)
        goal, baseline = encoder.encode_text(["goal", "the baseline"]).to(self.device)
        direction = (goal - baseline)[:, None]
        projection = direction @ direction.T / direction.norm() ** 2
        self._goal = goal
        self._matrix = ALPHA * projection + (1 - ALPHA) * torch.eye(len(goal), device=self.device)

    @torch.inference_mode()
    def encode(self, images: Tensor) -> Tensor:
        return nn.functional.normalize(self.tower(images.to(self.dtype)).float(), dim=-1)

    @torch.inference_mode()
    def paper(self, frames: Frames) -> Frames:
        pixels = torch.from_numpy(frames).to(self.device).permute(0, 3, 1, 2)
        return self.rewards(self._transform(pixels.float() / 255))

    @torch.inference_mode()
    def tutorial(self, frames: Frames) -> Frames:
        prepared = (self._pil(Image.fromarray(frame)).to(self.device) for frame in frames)
        return np.concatenate([self.rewards(image[None]) for image in prepared])

    @torch.inference_mode()
    def rewards(self, images: Tensor) -> Frames:
        apart = (self.encode(images) - self._goal) @ self._matrix
        return (1 - apart.norm(dim=-1) ** 2 / 2).cpu().numpy()


def model_of(encoder: Encoder, **settings: Any) -> CLIPRewardModel:
    prompts = {"goal_prompts": "goal", "baseline_prompts": "the baseline", "alpha": ALPHA}
    return CLIPRewardModel(encoder, **prompts, **settings, cache=False)  # the same frames come again and again


def image_size(tower: Any) -> int:
    return tower.input_resolution if hasattr(tower, "input_resolution") else tower.image_size[0]


def flops(tower: Any) -> float:
    """Of one image, by the whole network: 2 for each multiply-add of its matrix products."""
    width, _, patch, _ = tower.conv1.weight.shape
    tokens, hidden = len(tower.positional_embedding), tower.transformer.resblocks[0].mlp.c_fc.out_features
    layer = 2 * tokens * (4 * width**2 + 2 * width * hidden) + 4 * tokens**2 * width
    layers = len(tower.transformer.resblocks)
    return layers * layer + 2 * (tokens - 1) * 3 * patch**2 * width + 2 * width * tower.proj.shape[1]


def draw(n: int, height: int, width: int, seed: int = 0) -> Frames:
    """Frames of a dark box and a pole at random places on white: no two alike."""
    rng = np.random.default_rng(seed)
    frames = np.full((n, height, width, 3), 255, np.uint8)
    for frame, (x, y) in zip(frames, rng.random((n, 2)), strict=True):
        column, row = int(x * 0.8 * width), int((0.2 + 0.5 * y) * height)
        frame[row:, column : column + width // 8] = (20, 20, 20)
        frame[height // 5 : row, column + width // 16 : column + width // 12] = (202, 152, 101)
    return frames


# --- checks ------------------------------------------------------------------------------------


class Checks:
    """Prints and keeps what was checked."""

    def __init__(self) -> None:
        self.results: list[dict[str, Any]] = []

    def __call__(self, what: str, value: float, limit: float) -> None:
        ok = bool(value <= limit)  # not so for NaN
        self.results.append({"check": what, "value": float(value), "limit": limit, "ok": ok})
        print(f"{'ok    ' if ok else 'FAILED'} {what}: {value:.2e} (at most {limit:.0e})", flush=True)


def gap(found: Any, wanted: Any) -> float:
    """Largest difference in anything that a score holds."""
    return max(float(np.abs(a - b).max()) for a, b in zip(found, wanted, strict=True))


def check_all(name: str, tower: nn.Module, args: argparse.Namespace, check: Checks) -> None:
    frames = draw(70, *args.frame)
    few = frames[:12]
    encoder = Encoder(tower, name, "cpu", "float32")
    truth = model_of(encoder).score(few)
    own = Own(tower, "cpu", "float32", encoder)
    prepare = FramePreprocessor(encoder.image_size, encoder.mean, encoder.std)
    check(
        f"{name}: against the own encoder and the matrix form, CPU",
        gap([truth.rewards], [own.rewards(prepare(few))]),
        1e-5,
    )
    half = "float16" if args.device != "cpu" else "bfloat16"
    for dtype, limit in (("float32", 1e-5), (half, 5e-3)):
        check(f"{name}: {dtype} against float32 on the CPU",
              gap(model_of(Encoder(tower, name, args.device, dtype)).score(few), truth), limit)  # fmt: skip

    model = model_of(Encoder(tower, name, args.device, "float32"))
    whole = eager(model, frames)
    counts = [*range(1, 13), 17, 33, 64, 70]
    for repeat in range(5):  # from eager through the capture to replays
        worst = max(gap(model.score(frames[:n]), whole_of(whole, n)) for n in counts)
        check(f"{name}: any number of frames against one batch, round {repeat + 1}", worst, 1e-6)
    if args.device != "cpu":
        check(
            f"{name}: buckets that run without a graph",
            len(set(model._similarities.pipe._buckets) - set(model._similarities.pipe.captured)),
            0,
        )

    buffer, waiting = np.empty_like(frames), []
    for start in range(0, 48, 8):
        buffer[:8] = frames[start : start + 8]
        waiting.append((start, model.score_later(buffer[:8])))
        buffer[:8] = 0
    parts = {start: later() for start, later in reversed(waiting)}
    worst = max(gap(part, whole_of(whole, start + 8, start)) for start, part in parts.items())
    check(f"{name}: frames overwritten while under way, results asked in reverse", worst, 1e-6)
    if args.device != "cpu":
        check_memory(name, tower, args, check)


def eager(model: CLIPRewardModel, frames: Frames) -> Any:
    """One batch by the same functions on torch's default stream: no padding, no graph, no staging."""
    goal, baseline = model._similarities.compute(frames).cpu().numpy().T.copy()
    scores = FrameScores(goal, goal, baseline)
    return scores._replace(rewards=model.rewards_at(ALPHA, scores))


def whole_of(scores: Any, stop: int, start: int = 0) -> list[Frames]:
    return [part[start:stop] for part in scores]


def check_memory(name: str, tower: nn.Module, args: argparse.Namespace, check: Checks) -> None:
    """A batch that does not fit is scored all the same, with one warning."""
    frames = draw(512, 64, 96)
    model = model_of(Encoder(tower, name, args.device, "float16"), micro_batch_size=512)
    wanted = model.score(frames)
    model._similarities.pipe.clear()
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(args.device).total_memory
    room = torch.cuda.memory_reserved(args.device) + 200 * 2**20
    torch.cuda.set_per_process_memory_fraction(room / total, torch.device(args.device, 0))
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            worst = max(gap(model.score(frames), wanted) for _ in range(5))
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, torch.device(args.device, 0))
    check(f"{name}: 512 frames in 200 MB, float16", worst, 5e-3)
    said = [str(warning.message) for warning in caught]
    check(f"{name}: warnings of it, less one", abs(len(said) - 1) + ("don't fit" not in "".join(said)), 0)


# --- times -------------------------------------------------------------------------------------


def seconds(work: Callable[[], Any], device: str) -> float:
    clock = time.process_time if device == "cpu" else time.perf_counter
    if device != "cpu":
        torch.cuda.synchronize()
    start = clock()
    work()
    if device != "cpu":
        torch.cuda.synchronize()
    return clock() - start


def in_turns(paths: dict[str, Callable[[], Any]], args: argparse.Namespace) -> dict[str, float]:
    """Median milliseconds of each, after 4 rounds to warm up on CUDA (the third captures), 1 on a CPU."""
    times: dict[str, list[float]] = {name: [] for name in paths}
    warm = 1 if args.device == "cpu" else 4
    for turn in range(warm + args.rounds):
        for name, path in paths.items():
            times[name].append(seconds(path, args.device))
        if turn >= warm + 2 and sum(map(sum, times.values())) > args.seconds:
            break
    return {name: statistics.median(taken[warm:]) * 1e3 for name, taken in times.items()}


def peak(args: argparse.Namespace) -> float:
    """FLOP/s of this device's matrix product in ``args.dtype``: 8192^3 on CUDA, 1024^3 on a CPU."""
    n = 1024 if args.device == "cpu" else 8192
    a, b = (torch.randn(n, n, device=args.device, dtype=DTYPES[args.dtype]) for _ in range(2))
    taken = [seconds(lambda: torch.mm(a, b), args.device) for _ in range(20)]
    return 2 * n**3 / statistics.median(taken[5:])


def measure(name: str, tower: nn.Module, top: float, args: argparse.Namespace) -> list[dict[str, Any]]:
    models = {
        backend: model_of(
            Encoder(tower, name, args.device, args.dtype, backend), micro_batch_size=args.micro_batch_size
        )
        for backend in args.backends
    }
    own = Own(tower, args.device, args.dtype, models[args.backends[0]].encoder)
    rows = []
    for batch in args.batches:
        frames = draw(batch, *args.frame)
        images = torch.randn(batch, 3, own.size, own.size, device=args.device)
        paths: dict[str, Callable[[], Any]] = {
            "own encode": partial(own.encode, images),
            "paper": partial(own.paper, frames),
            "tutorial": partial(own.tutorial, frames[:8]),
        }
        for backend, model in models.items():
            paths[f"{backend} encode"] = partial(model.encoder.encode_image, images)
            paths[f"{backend} score"] = partial(model.score, frames)
        try:
            ms = in_turns(paths, args)
        except torch.OutOfMemoryError:
            print(f"{name} at {batch}: one of the paths does not fit")
            torch.cuda.empty_cache()
            continue
        tutorial = ms["tutorial"] / len(frames[:8]) * batch
        for backend in models:
            encode, score = ms[f"{backend} encode"], ms[f"{backend} score"]
            rows.append({
                "tower": name, "batch": batch, "backend": backend,
                "own encode ms": ms["own encode"], "encode ms": encode, "encode own/ours": ms["own encode"] / encode,
                "share of peak": flops(tower) * batch / (encode / 1e3) / top,
                "paper ms": ms["paper"], "score ms": score, "paper/ours": ms["paper"] / score,
                "tutorial/ours": tutorial / score, "frames/s": batch / score * 1e3,
            })  # fmt: skip
            print_row(list(rows[-1].values()))
    return rows


def print_row(cells: list[Any]) -> None:
    print(
        "| " + " | ".join(f"{cell:.3g}" if isinstance(cell, float) else str(cell) for cell in cells) + " |", flush=True
    )


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--dtype", choices=tuple(DTYPES), help="float16 on CUDA, float32 on a CPU unless given")
    parser.add_argument("--tiny", action="store_true", help="small towers, small frames, few rounds")
    parser.add_argument("--models", nargs="+", help=f"of {', '.join(TOWERS)}; all unless given")
    parser.add_argument("--batches", nargs="+", type=int, default=[8, 64, 256, 1024])
    parser.add_argument("--backends", nargs="+", choices=("torch", "openvino"), default=["torch"])
    parser.add_argument("--micro_batch_size", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--seconds", type=float, default=20, help="for one batch size; 3 rounds are timed anyway")
    parser.add_argument("--no-checks", action="store_true")
    parser.add_argument("--json", type=Path, help="write everything here as well")
    args = parser.parse_args()
    args.dtype = args.dtype or ("float32" if args.device == "cpu" else "float16")
    args.towers, args.frame = (TINY, (40, 60)) if args.tiny else (TOWERS, (400, 600))
    if args.tiny:
        args.batches, args.rounds = [1, 8], 3
    args.models = args.models or list(args.towers)
    if unknown := set(args.models) - set(args.towers):
        parser.error(f"unknown models {sorted(unknown)}; there are {list(args.towers)}")
    if args.device == "cuda" and not torch.cuda.is_available():
        parser.error("no CUDA device here; --device cpu --tiny runs the same code")
    return args


def main() -> int:
    args = parse_args()
    if args.device == "cpu":
        torch.set_num_threads(1)
    device = "one CPU thread" if args.device == "cpu" else torch.cuda.get_device_name()
    print(f"{device}, torch {torch.__version__}, {args.dtype}, frames {args.frame}")
    check = Checks()
    top, rows = peak(args), []
    print(f"matrix product: {top / 1e12:.3g} TFLOP/s")
    for number, name in enumerate(args.models):
        torch.manual_seed(0)
        tower = args.towers[name]().eval().requires_grad_(False)
        if not args.no_checks and (args.tiny or number == 0):
            check_all(name, tower, args, check)
        rows += measure(name, tower, top, args)
    print()
    print_row(list(rows[0]))
    print_row(["---"] * len(rows[0]))
    for row in rows:
        print_row(list(row.values()))
    if args.json:
        about = {"device": device, "processor": platform.processor(), "torch": torch.__version__, "dtype": args.dtype}
        content = {**about, "peak FLOP/s": top, "checks": check.results, "rows": rows}
        args.json.write_text(json.dumps(content, indent=2) + "\n")
    return int(not all(result["ok"] for result in check.results))


if __name__ == "__main__":
    sys.exit(main())
