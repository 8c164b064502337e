"""Measure the embedded CLIP on states and wordings it was never trained on; generate its model card's tables.

    python experiments/embedded_clip/evaluate.py                               # the shipped model
    python experiments/embedded_clip/evaluate.py runs/clip-seed1.safetensors   # and others, trained with other seeds
    python experiments/embedded_clip/evaluate.py ... --write-card --sheet docs/embedded_clip.png

With several models a cell is the mean over them ± half the distance between the extremes.

States are drawn from the distribution of the training states with another seed. Wordings are the held-out ones
and the preset prompts. Spearman's rank correlation, where the truth has ties (a cell of a grid, a cart in or out of the
picture), is divided by the most that a tie-free reward can reach.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch

from failures import weak_wordings
from heldout import VIEWS, Known, Sample, embed, held_out, name_of, speaking
from measures import (
    ALPHAS,
    Table,
    calibration_table,
    decile_table,
    denial_table,
    encoding_cost,
    picture_table,
    preset_table,
    retrieval_table,
    side_table,
    wording_table,
)
from pictures import draw
from vlmrm_wrap.encoders.embedded import load_embedded
from worlds import WORLDS

ASSETS = Path(__file__).parents[2] / "vlmrm_wrap/encoders/assets"


def main() -> None:
    args = parse_args()
    torch.set_num_threads(1)
    samples = [held_out(world, args.frames) for world in WORLDS]
    models = [embed(load_embedded("cpu", "float32", path=path), samples) for path in [None, *args.models]]
    report = "\n\n".join(sections(models, samples))
    print(report)
    if args.write_card:
        write_section(ASSETS / "MODEL_CARD.md", "evaluation", report)
    if args.sheet:
        draw_sheet(models[0], samples, args.sheet)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("models", type=Path, nargs="*", help="further models, of other training seeds")
    parser.add_argument("--frames", type=int, default=1500, help="frames per env")
    parser.add_argument("--write-card", action="store_true", help="put the tables into MODEL_CARD.md")
    parser.add_argument("--sheet", type=Path, help="draw example frames with their best and worst captions")
    return parser.parse_args()


def sections(models: list[Known], samples: list[Sample]) -> Iterator[str]:
    def over_models(measure: Callable[[Known, list[Sample]], Table], *header: str) -> str:
        return merged([measure(model, samples) for model in models], header)

    alphas = [f"alpha {alpha:g}" for alpha in ALPHAS]
    yield f"Models: {len(models)} (training seeds {', '.join(model.encoder.metadata['seed'] for model in models)})."
    yield "Spearman correlation of the reward with the preset prompts:\n\n" + over_models(
        preset_table, "env", "with", "frames", "number", *alphas
    )
    yield "Mean reward at alpha 0.5 with the preset prompts, by tenths of the states, worst to best:\n\n" + over_models(
        decile_table, "env", *(f"{tenth}" for tenth in range(1, 11))
    )
    yield (
        "Held-out wordings as goals, held-out names as baselines: Spearman correlation of the reward with the truth of "
        "the wording.\n\n"
        + over_models(wording_table, "env", "wordings", "number", *alphas, "worst at 0.5", "below 0.5")
    )
    yield (
        "Wordings below 0.5 at alpha 0.5, first model; which region each is taken for, with the correlation that shows "
        "it; and the word in it that the fewest training wordings of its world hold.\n\n"
        + weak_wordings(models[0], samples)
    )
    yield (
        "Contradictions, held-out wordings on both sides: the share of frames on which the truer of the two has the "
        "higher cosine.\n\n" + over_models(denial_table, "env", "region", "against", "right")
    )
    yield (
        "Left against right: the share of frames on which a held-out wording and its mirror image are told apart.\n\n"
        + over_models(side_table, "env", "wordings", "number", "right")
    )
    yield (
        "Retrieval, all worlds and all held-out wordings together. Loss: how much less likely the choice is than the "
        "best there is, in log units.\n\n"
        + over_models(
            retrieval_table, "env", "right world", "caption: loss <= 0.5", "<= 1", "frame: loss <= 0.5", "<= 1"
        )
    )
    yield "Other pictures: Spearman correlation with the preset prompts at alpha 0.5.\n\n" + over_models(
        picture_table, "env", "as drawn", *VIEWS, "noise of 10 levels", "20 % darker"
    )
    yield (
        "Calibration: the model's probability that a caption is the truest of eight held-out ones (the softmax of its "
        "scaled cosines), against how often it is.\n\n"
        + over_models(calibration_table, "probability", "choices", "mean probability", "right")
    )
    yield f"Encoding cost, batch of 8, one thread: {encoding_cost(models[0].encoder):.2f} CPU-ms a frame."


# --- Markdown and the sheet ----------------------------------------------------------------------------------


def merged(tables: list[Table], header: tuple[str, ...]) -> str:
    lines = ["| " + " | ".join(header) + " |", "| " + " | ".join("---" for _ in header) + " |"]
    for row in tables[0]:
        columns = np.array([table[row] for table in tables])
        middle, spread = columns.mean(0), np.ptp(columns, axis=0) / 2
        cells = [cell(value, half, len(tables)) for value, half in zip(middle, spread, strict=True)]
        lines.append("| " + " | ".join([*row, *cells]) + " |")
    return "\n".join(lines)


def cell(value: float, half: float, models: int) -> str:
    if np.isnan(value):
        return "-"
    if abs(value) >= 2:  # a count
        return f"{value:.0f}"
    return f"{value:.3f} ± {half:.3f}" if models > 1 else f"{value:.3f}"


def write_section(path: Path, name: str, text: str) -> None:
    """Replaces what stands between <!-- name --> and <!-- /name -->."""
    pattern = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
    old = path.read_text()
    if not pattern.search(old):
        raise ValueError(f"{path} has no section <!-- {name} --> ... <!-- /{name} -->")
    path.write_text(pattern.sub(lambda match: f"{match[1]}{text}\n{match[2]}", old))


def draw_sheet(model: Known, samples: list[Sample], path: Path) -> None:
    """Four frames of each world, worst to best, with the held-out captions of its family that fit best and worst."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    columns, scale = 4, model.encoder.logit_scale
    figure, axes = plt.subplots(len(samples), columns, figsize=(13, 2.75 * len(samples)), layout="constrained")
    for line, sample in zip(axes, samples, strict=True):
        goals = speaking(sample.world.family)
        texts = torch.stack([model.texts[goal.text] for goal in goals])
        truth = sample.world.truth(sample.states)
        order = [row for row in np.argsort(truth, kind="stable") if np.isfinite(truth[row])]
        rows = np.array(order)[np.linspace(0, len(order) - 1, columns).astype(int)]
        for axis, row, frame in zip(line, rows, draw(sample.world, sample.states[rows]), strict=True):
            cosine = (model.images[name_of(sample)][row] @ texts.T).numpy()
            worst_first = cosine.argsort()
            axis.imshow(frame, aspect="auto")
            axis.set_xticks([])
            axis.set_yticks([])
            best = [f"+{cosine[i]:.2f} {goals[i].text}" for i in worst_first[::-1][:2]]
            worst = [f"{cosine[i]:+.2f} {goals[i].text}" for i in worst_first[:1]]
            axis.set_xlabel("\n".join(shortened(text) for text in best + worst), fontsize=7, loc="left")
        line[0].set_ylabel(name_of(sample), fontsize=8)
    figure.suptitle(f"cosines of held-out captions: the two best and the worst (logit scale {scale:.1f})", fontsize=10)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=60)
    plt.close(figure)


def shortened(text: str, length: int = 54) -> str:
    return text if len(text) <= length else text[: length - 3] + "..."


if __name__ == "__main__":
    main()
