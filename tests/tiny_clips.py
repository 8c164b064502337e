"""Untrained CLIPs of a few MB, from an explicit seed: the only place where random weights are built."""

import json
from pathlib import Path

import torch
from torch import Tensor

from vlmrm_wrap.encoders.openai_clip import import_clip

OPEN_CLIP_NAME = "tiny-untrained"
OPEN_CLIP_CONTEXT = 16  # unlike OpenAI's 77


def tiny_state_dict(kind: str = "vit", seed: int = 0) -> dict[str, Tensor]:
    """OpenAI's layout, float32; "vit": 32 x 32 images, "resnet": 64 x 64; 32 dimensions."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        vision = (32, 2, 64, 16) if kind == "vit" else (64, (1, 1, 1, 1), 16, None)
        model = import_clip().model.CLIP(32, *vision, 77, 49408, 64, 1, 2)
        state_dict: dict[str, Tensor] = model.state_dict()
        for name, value in state_dict.items():
            # clip starts these at 0, 1 or nearly so, and a tower with nothing to say tests nothing
            if name.endswith("bn3.weight"):
                value.fill_(1)
            elif "bn" in name and name.endswith("running_var"):
                value.fill_(0.05)
            elif name in ("positional_embedding", "token_embedding.weight"):
                value.mul_(20)
    return state_dict


def add_tiny_open_clip(folder: Path, seed: int = 0) -> Path:
    """Teach open_clip an architecture of the name ``OPEN_CLIP_NAME``; returns weights for it."""
    import open_clip

    config = {
        "embed_dim": 32,
        "vision_cfg": {"image_size": 32, "layers": 2, "width": 64, "patch_size": 16},
        "text_cfg": {
            "context_length": OPEN_CLIP_CONTEXT,
            "vocab_size": 49408,
            "width": 64,
            "heads": 1,
            "layers": 2,
        },
    }
    config["vision_cfg"]["head_width"] = 64  # type: ignore[index]
    (folder / f"{OPEN_CLIP_NAME}.json").write_text(json.dumps(config))
    open_clip.add_model_config(folder)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = open_clip.model.CLIP(**open_clip.get_model_config(OPEN_CLIP_NAME))
        model.positional_embedding.data.mul_(20)
        model.token_embedding.weight.data.mul_(20)
    path = folder / "tiny.pt"
    torch.save(model.state_dict(), path)
    return path
