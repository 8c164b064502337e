"""Runs presets of the paper at a length that shows that they start and train: no results, seconds instead of GPU-days.

    python experiments/smoke.py                                           # all of configs/paper
    python experiments/smoke.py configs/paper/cartpole_dqn.yaml

Each runs through its script's real command line, with the embedded model, two envs, and SHORT and its like on top;
the rest of the preset is as it stands, worker processes, deferred scoring, camera and textures included. Prints what
departs from the preset and what the training printed, and one line each at the end; exit status 1 if any failed.
"""

import argparse
import csv
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

from presets import PRESETS

HERE = Path(__file__).parent


SHORT = {
    "reward.encoder": "embedded",
    "reward.device": "cpu",
    "reward.micro_batch_size": 16,
    "env.n_envs": 2,
    "evaluation.episodes": 1,
    "evaluation.video": "false",
    "window": 1,
}
# Of the section that names the algorithm: learning_starts and the like in proportion.
UPDATES = {"learning_starts": 20, "buffer_size": 1000, "train_freq": 10, "gradient_steps": 10}
LENGTHS = {
    "cartpole": {"total_steps": 400, "env.horizon": 50},
    "mountain_car": {"total_steps": 400, "env.horizon": 50, "evaluation.max_steps": 50},
    "humanoid": {
        "total_steps": 80,
        "env.horizon": 10,
        "env.kwargs.fast_render": "true",  # without a GPU
        "evaluation.max_steps": 10,
    },
}


def command(preset: Path, out: str) -> list[str]:
    settings = yaml.safe_load(preset.read_text())
    algorithm = next(name for name in ("dqn", "sac") if name in settings)
    length = next(length for task, length in LENGTHS.items() if preset.name.startswith(task))
    updates = {f"{algorithm}.{name}": value for name, value in UPDATES.items()}
    options = {**SHORT, **updates, **length, "out": out, "name": preset.stem}
    fields = [part for name, value in options.items() for part in (f"--{name}", str(value))]
    return [sys.executable, str(HERE / f"train_{algorithm}.py"), "--config", str(preset), *fields]


def updates_of(run: Path) -> int:
    """Gradient steps that the training of a run folder took."""
    with (run / "progress.csv").open() as file:
        counts = [row.get("train/n_updates") for row in csv.DictReader(file)]
    return max((int(float(count)) for count in counts if count), default=0)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("presets", nargs="*", type=Path, default=sorted(PRESETS.glob("*.yaml")))
    parser.add_argument("--timeout", type=float, default=300, help="seconds that one may take")
    arguments = parser.parse_args()
    report, failed = [], False
    with tempfile.TemporaryDirectory() as out:
        for preset in arguments.presets:
            print(f"== {preset}", flush=True)
            begun = time.monotonic()
            try:
                done = subprocess.run(command(preset, out), timeout=arguments.timeout, check=False).returncode
            except subprocess.TimeoutExpired:
                done = 124
            updates = updates_of(Path(out) / preset.stem) if done == 0 else 0
            failed |= not updates
            verdict = f"{updates} updates" if updates else f"FAILED, exit status {done}"
            report.append(f"{preset.stem}: {verdict}, {time.monotonic() - begun:.0f} s")
    print("\n".join(report))
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
