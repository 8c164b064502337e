"""The network in training: OpenAI's CLIP, very small, with only the tokens of our sentences.

The sizes are chosen for one CPU core: 64 x 64 images in 16 patches, width 128, 4 vision layers and
2 text layers. Everything is `clip.model.CLIP` itself, so the weights load into OpenAI's own
`build_model`; what differs during training is where text enters, because a full table of 49408
token embeddings would be 90 % of the model and a context of 77 positions 3/4 padding.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

from bank import PRESETS, all_texts, taught_words
from pictures import IMAGE_SIZE, INTERPOLATION, RESIZE_MODE
from vlmrm_wrap.encoders.openai_clip import OPENAI_MEAN, OPENAI_STD, import_clip
from worlds import WORLDS

import_clip()
from clip.model import CLIP  # noqa: E402  (import_clip silences the import's own warning)
from clip.simple_tokenizer import SimpleTokenizer  # noqa: E402

CONTEXT_LENGTH, EMBED_DIM = 77, 128
FORMAT_VERSION = "1"
MAX_LOGIT_SCALE = 30.0


class Vocabulary:
    """Rows of the compact embedding table: 0 is every unknown token, 1.. the tokens of our sentences.

    Rows follow token ids upwards, so the end-of-text token (the highest id) keeps the highest row,
    by which CLIP finds it.
    """

    def __init__(self) -> None:
        self._tokenizer = SimpleTokenizer()
        encoder = self._tokenizer.encoder
        self._start, self._end = encoder["<|startoftext|>"], encoder["<|endoftext|>"]
        ids = {token for text in set(all_texts()) for token in self._tokenizer.encode(text)}
        self.token_ids = sorted(ids | {self._start, self._end})
        self._row = {token: row for row, token in enumerate(self.token_ids, start=1)}
        self._cache: dict[str, list[int]] = {}
        self.longest = 0  # tokens in the longest text that was encoded

    def __len__(self) -> int:
        return len(self.token_ids) + 1

    def encode(self, texts: Sequence[str]) -> Tensor:
        """int64 (n, longest), start and end included, padded with 0 after the end."""
        rows = [torch.tensor(self._rows(text)) for text in texts]
        self.longest = max(self.longest, *map(len, rows))
        return nn.utils.rnn.pad_sequence(rows, batch_first=True)

    def drop(self, tokens: Tensor, rate: float, generator: torch.Generator) -> Tensor:
        """Some words become unknown: this teaches row 0, and not to hang on every single word."""
        is_word = (tokens != self._row[self._start]) & (tokens != self._row[self._end])
        chosen = torch.rand(tokens.shape, generator=generator) < rate
        return tokens.masked_fill(is_word & chosen, 0)

    def _rows(self, text: str) -> list[int]:
        if text not in self._cache:
            tokens = [self._start, *self._tokenizer.encode(text), self._end]
            if len(self._cache) > 100_000:  # slots and numbers make endless texts
                self._cache.clear()
            self._cache[text] = [self._row.get(token, 0) for token in tokens]
        return self._cache[text]


class TinyCLIP(CLIP):  # type: ignore[misc]
    """CLIP whose text tower reads only as many positions as the longest caption of the batch."""

    def __init__(self, vocabulary_size: int) -> None:
        super().__init__(
            embed_dim=EMBED_DIM,
            image_resolution=IMAGE_SIZE,
            vision_layers=4,
            vision_width=128,
            vision_patch_size=16,
            context_length=CONTEXT_LENGTH,
            vocab_size=vocabulary_size,
            transformer_width=128,
            transformer_heads=2,
            transformer_layers=2,
        )
        nn.init.constant_(self.logit_scale, math.log(14))
        self._mask = self.build_attention_mask()

    def embed_images(self, images: Tensor) -> Tensor:
        return functional.normalize(self.encode_image(images), dim=1)

    def embed_tokens(self, tokens: Tensor) -> Tensor:
        """What `encode_text` gives for the padded tokens. Texts of like length are read together, in four groups,
        which saves half of the time."""
        ends = tokens.argmax(dim=1)
        order = ends.argsort()
        groups = [self._embed(tokens[rows, : int(ends[rows].max()) + 1]) for rows in order.tensor_split(4) if len(rows)]
        return torch.cat(groups)[order.argsort()]

    def _embed(self, tokens: Tensor) -> Tensor:
        """Attention is causal, so nothing before the end-of-text token sees the padding that is left away here."""
        length = tokens.shape[1]
        x = self.token_embedding(tokens) + self.positional_embedding[:length]
        x = x.permute(1, 0, 2)
        for block in self.transformer.resblocks:
            block.attn_mask = self._mask[:length, :length]
            x = block(x)
        x = self.ln_final(x.permute(1, 0, 2))
        at_end = x[torch.arange(len(tokens)), tokens.argmax(dim=-1)]
        return functional.normalize(at_end @ self.text_projection, dim=1)

    def scale(self) -> Tensor:
        return self.logit_scale.exp().clamp(max=MAX_LOGIT_SCALE)

    @torch.no_grad()
    def centre_on(self, images: Tensor) -> None:
        """Start from what distinguishes images rather than from the ground they share.

        With CLIP's own initialisation all embeddings of a world start almost equal, and the first hundreds of steps
        go by on a plateau. Here filters start blind to the colour of an even patch (else white worlds differ from
        black ones, and nothing else does), the mean patch is subtracted through the positional embedding, the rest
        is brought to a spread of 0.5, and the text embeddings are made twice as large.
        """
        self.visual.conv1.weight -= self.visual.conv1.weight.mean((2, 3), keepdim=True)
        patches = self.visual.conv1(images).flatten(2).permute(0, 2, 1)
        mean = patches.mean(0)
        gain = 0.5 / (patches - mean).std()
        self.visual.conv1.weight.mul_(gain)
        noise = 0.1 * torch.randn(mean.shape)
        self.visual.positional_embedding[1:].copy_(noise - gain * mean)
        self.token_embedding.weight.mul_(2)
        self.positional_embedding.mul_(2)


class StateReader(nn.Module):
    """Embeds states, as numbers, where the image tower will embed their pictures. Thrown away after training.

    The text tower learns from it what sentences mean, long before an image tower could tell it.
    """

    def __init__(self, attributes: int, families: int) -> None:
        super().__init__()
        self._families = families
        self._layers = nn.Sequential(
            nn.Linear(attributes + families, 256), nn.GELU(), nn.Linear(256, 256), nn.GELU(), nn.Linear(256, EMBED_DIM)
        )

    def forward(self, attributes: Tensor, family: Tensor) -> Tensor:
        """float32 (n, k), int64 (n,) -> unit (n, EMBED_DIM)."""
        known = torch.cat([attributes, functional.one_hot(family, self._families).float()], dim=1)
        return functional.normalize(self._layers(known), dim=1)


def normalise(images: Tensor) -> Tensor:
    """uint8 (n, 3, 64, 64) -> float32 with OpenAI's mean and standard deviation."""
    mean = torch.tensor(OPENAI_MEAN).view(1, 3, 1, 1)
    std = torch.tensor(OPENAI_STD).view(1, 3, 1, 1)
    return (images.float() / 255 - mean) / std


def export(
    model: TinyCLIP,
    vocabulary: Vocabulary,
    path: Path,
    *,
    seed: int,
    steps: int,
) -> None:
    """Writes the asset: half precision, OpenAI's names, the compact table with its `token_ids`.

    Text positions after the longest caption that was ever read repeat the last one that was trained.
    """
    weights = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
    last = min(vocabulary.longest, CONTEXT_LENGTH) - 1
    weights["positional_embedding"][last + 1 :] = weights["positional_embedding"][last]
    weights["logit_scale"].clamp_(max=math.log(MAX_LOGIT_SCALE))
    tensors = {name: tensor.half().contiguous() for name, tensor in weights.items()}
    tensors["token_ids"] = torch.tensor(vocabulary.token_ids, dtype=torch.int32)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, path, metadata=_metadata(seed=seed, steps=steps))
    _sort_header(path)
    path.chmod(0o644)  # safetensors writes files that only their owner can read


def _sort_header(path: Path) -> None:
    """safetensors orders its metadata at random; sorted, the same weights are the same bytes."""
    content = path.read_bytes()
    end = 8 + int.from_bytes(content[:8], "little")
    header = json.dumps(json.loads(content[8:end]), sort_keys=True, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)  # the tensors after it stay aligned
    path.write_bytes(len(header).to_bytes(8, "little") + header + content[end:])


def _metadata(*, seed: int, steps: int) -> dict[str, str]:
    return {
        "format_version": FORMAT_VERSION,
        "mean": json.dumps(OPENAI_MEAN),
        "std": json.dumps(OPENAI_STD),
        "interpolation": INTERPOLATION,
        "resize_mode": RESIZE_MODE,
        "taught_words": json.dumps(taught_words()),
        "env_ids": json.dumps([world.env_id for world in WORLDS]),
        "preset_prompts": json.dumps(PRESETS),
        "seed": str(seed),
        "steps": str(steps),
    }
