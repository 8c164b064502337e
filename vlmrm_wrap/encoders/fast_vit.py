"""The image tower of a plain CLIP ViT, computing the same embedding with less work.

Exact, to the rounding of float32 (other orders of the same sums):

- The last block runs for the class token alone, which is all that the embedding reads; the other tokens
  are only looked at by its attention, and not even projected for that.
- What is linear on both sides of a join is multiplied out once, at load: a layer norm's scale and shift
  go into the linear layer behind it, and QuickGELU, x * sigmoid(1.702 x), becomes silu(1.702 x) / 1.702
  with the factors in the weights around it, one pass over the widest activations where it had three. In
  half precision this loses nothing either: each product is made in float32 and rounded once, as the
  weight alone would have been.
- Patches are cut out by a view and embedded by one matrix product; attention runs in torch's fused kernel;
  residuals are added by the matrix product that makes them.

Dosovitskiy et al. 2021 (arXiv 2010.11929) is the ViT, Radford et al. 2021 (arXiv 2103.00020) this one.
"""

from collections.abc import Iterable
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["FastViT", "fast_vit"]

_QUICK = 1.702  # of QuickGELU

# By name, so that open_clip stays unloaded where it is not used; subclasses may compute anything.
_TOWERS = {"clip.model.VisionTransformer", "open_clip.transformer.VisionTransformer"}
_BLOCKS = {"clip.model.ResidualAttentionBlock", "open_clip.transformer.ResidualAttentionBlock"}
_NORMS = {"clip.model.LayerNorm", "open_clip.transformer.LayerNorm", "open_clip.transformer.LayerNormFp32"}
_QUICK_GELUS = {"clip.model.QuickGELU", "open_clip.transformer.QuickGELU"}


def fast_vit(tower: nn.Module) -> nn.Module:
    """A :class:`FastViT` that equals ``tower``; ``tower`` itself if it is anything but a plain CLIP ViT.

    ``tower``: in float32, on the CPU, as it was loaded. ResNets, attention pooling, average pooling, timm
    models and other variants keep their own forward.
    """
    return FastViT(tower) if _is_plain(tower) else tower


class FastViT(nn.Module):
    """Images ``(n, 3, S, S)`` -> features ``(n, D)``, any n from 1, in the dtype of its weights.

    >>> tower = import_clip().model.VisionTransformer(32, 16, 64, 2, 1, 8).requires_grad_(False)
    >>> images = torch.ones(2, 3, 32, 32)
    >>> torch.allclose(FastViT(tower)(images), tower(images), atol=1e-5)
    True

    ``tower`` is not written to, and shares what needed no rewriting. Build it with :func:`fast_vit`,
    which knows what it equals.
    """

    @torch.no_grad()
    def __init__(self, tower: Any) -> None:
        super().__init__()
        width, _, self.patch, _ = tower.conv1.weight.shape
        self.width = width
        self.heads = int(tower.transformer.resblocks[0].attn.num_heads)
        # tokens of the patches: W x + position, then ln_pre, whose output the residuals use as it is
        self.embed = _fixed(tower.conv1.weight.reshape(width, -1))
        self.positions = _fixed(tower.positional_embedding[1:])
        self.pre, self.pre_shift = _fixed(tower.ln_pre.weight), _fixed(tower.ln_pre.bias)
        self.pre_eps = tower.ln_pre.eps
        # the class token starts the same for every image
        start = (tower.class_embedding + tower.positional_embedding[0])[None]
        self.start = _fixed(tower.ln_pre(start))
        self.blocks = nn.ModuleList(_Block(block) for block in tower.transformer.resblocks)
        # (norm * scale + shift) @ proj
        self.project = _fixed((tower.ln_post.weight[:, None] * tower.proj).T.contiguous())
        self.project_shift = _fixed(tower.ln_post.bias @ tower.proj)
        self.post_eps = tower.ln_post.eps

    def forward(self, images: Tensor) -> Tensor:
        return self.encode(self.patches(images))

    def patches(self, images: Tensor) -> Tensor:
        """``(n, 3, S, S)`` -> ``(n, patches, 3 * patch * patch)``, contiguous: the conv's input as rows."""
        n, channels, side, _ = images.shape
        size, rows = self.patch, side // self.patch
        grid = images.view(n, channels, rows, size, rows, size)  # whichever way the images are stored
        return grid.permute(0, 2, 4, 1, 3, 5).reshape(n, rows * rows, -1)

    def encode(self, patches: Tensor) -> Tensor:
        """What :meth:`patches` cut -> features ``(n, D)``."""
        n, width = len(patches), self.width
        tokens = F.linear(patches, self.embed).add_(self.positions)
        tokens = F.layer_norm(tokens, (width,), self.pre, self.pre_shift, self.pre_eps)
        hidden = torch.cat([self.start.expand(n, 1, width), tokens], dim=1)
        *blocks, last = cast(Iterable[_Block], self.blocks)
        for block in blocks:
            hidden = block(hidden)
        features = _norm(last.first_token(hidden), self.post_eps)
        return F.linear(features, self.project, self.project_shift)


class _Block(nn.Module):
    """Attention and MLP of one layer, both on normalised tokens, both added to the residuals."""

    def __init__(self, block: Any) -> None:
        super().__init__()
        attention, mlp = block.attn, block.mlp
        self.heads = int(attention.num_heads)
        self.eps1, self.eps2 = block.ln_1.eps, block.ln_2.eps
        qkv, qkv_bias = _behind_norm(attention.in_proj_weight, attention.in_proj_bias, block.ln_1)
        self.qkv, self.qkv_bias = _fixed(qkv), _fixed(qkv_bias)
        self.out, self.out_bias = _fixed(attention.out_proj.weight), _fixed(attention.out_proj.bias)
        wide, wide_bias = _behind_norm(mlp.c_fc.weight, mlp.c_fc.bias, block.ln_2)
        narrow = mlp.c_proj.weight
        self.quick = _name(mlp.gelu) in _QUICK_GELUS
        if self.quick:
            wide, wide_bias, narrow = wide * _QUICK, wide_bias * _QUICK, narrow / _QUICK
        self.approximate = getattr(mlp.gelu, "approximate", "none")
        self.wide, self.wide_bias = _fixed(wide), _fixed(wide_bias)
        self.narrow, self.narrow_bias = _fixed(narrow), _fixed(mlp.c_proj.bias)

    def forward(self, hidden: Tensor) -> Tensor:
        """``(n, T, width)`` -> the same tensor, with this layer's output added to it."""
        n, tokens, width = hidden.shape
        rows = hidden.view(n * tokens, width)  # a view: what is added to it is added to hidden
        joined = F.linear(_norm(hidden, self.eps1), self.qkv, self.qkv_bias).view(n, tokens, 3, self.heads, -1)
        q, k, v = joined.permute(2, 0, 3, 1, 4).unbind(0)  # (n, heads, T, width / heads), no copies
        self._add_attention(rows, F.scaled_dot_product_attention(q, k, v).transpose(1, 2))
        self._add_mlp(rows)
        return hidden

    def first_token(self, hidden: Tensor) -> Tensor:
        """``(n, T, width)`` -> row 0 of what :meth:`forward` gives, ``(n, width)``.

        With one query a head, no token needs its key or value. For a head with the weights Q, K and V,
        q . (K x) is (K' q) . x, and the mean of V x + c under the attention is V times the mean of x,
        plus c. A bias of K shifts all scores of a query alike, which softmax ignores.
        """
        n, _, width = hidden.shape
        tokens = _norm(hidden, self.eps1)
        _, keys, values = self.qkv.view(3, self.heads, -1, width)
        size = keys.shape[1]
        query = F.linear(tokens[:, 0], self.qkv[:width], self.qkv_bias[:width]).view(n, self.heads, size)
        query = torch.bmm(query.transpose(0, 1) * size**-0.5, keys).transpose(0, 1)  # (n, heads, width)
        weights = torch.bmm(query, tokens.transpose(1, 2)).softmax(dim=-1)
        means = torch.bmm(weights, tokens).transpose(0, 1)  # (heads, n, width)
        shifts = self.qkv_bias[2 * width :].view(self.heads, 1, size)
        mixed = torch.baddbmm(shifts, means, values.transpose(1, 2))  # (heads, n, size)
        rows = hidden[:, 0].contiguous()
        self._add_attention(rows, mixed.transpose(0, 1))
        self._add_mlp(rows)
        return rows

    def _add_attention(self, rows: Tensor, mixed: Tensor) -> None:
        rows.add_(self.out_bias).addmm_(mixed.reshape(rows.shape), self.out.t())

    def _add_mlp(self, rows: Tensor) -> None:
        wide = F.linear(_norm(rows, self.eps2), self.wide, self.wide_bias)
        wide = F.silu(wide, inplace=True) if self.quick else F.gelu(wide, approximate=self.approximate)
        rows.add_(self.narrow_bias).addmm_(wide, self.narrow.t())


def _norm(rows: Tensor, eps: float) -> Tensor:
    """The layer norm whose scale and shift went elsewhere; torch takes the mean and variance in float32."""
    return F.layer_norm(rows, rows.shape[-1:], None, None, eps)


def _behind_norm(weight: Tensor, bias: Tensor, norm: nn.LayerNorm) -> tuple[Tensor, Tensor]:
    """W and c with W norm(x) + c equal to ``weight (scale norm(x) + shift) + bias``."""
    return weight * norm.weight, bias + weight @ norm.bias


def _fixed(tensor: Tensor) -> nn.Parameter:
    return nn.Parameter(tensor.detach(), requires_grad=False)


def _name(module: Any) -> str:
    return f"{type(module).__module__}.{type(module).__qualname__}"


def _is_plain(tower: Any) -> bool:
    """Whether it is a ViT of OpenAI's layout in every part that its embedding depends on."""
    if _name(tower) not in _TOWERS or tower.proj is None:
        return False
    # what only open_clip's has, with the values that change nothing
    own = {"attn_pool": None, "pool_type": "tok", "output_tokens": False}
    if any(getattr(tower, name, plain) != plain for name, plain in own.items()):
        return False
    if not isinstance(getattr(tower, "patch_dropout", nn.Identity()), nn.Identity):
        return False
    height, width = tower.conv1.kernel_size
    blocks = list(tower.transformer.resblocks)
    return (
        height == width
        and tower.conv1.stride == tower.conv1.kernel_size
        and tower.conv1.bias is None
        and _is_plain_norm(tower.ln_pre)
        and _is_plain_norm(tower.ln_post)
        and len(blocks) > 0
        and all(_is_plain_block(block) for block in blocks)
        and all(parameter.dtype == torch.float32 for parameter in tower.parameters())
    )


def _is_plain_block(block: Any) -> bool:
    if _name(block) not in _BLOCKS or getattr(block, "attn_mask", None) is not None or hasattr(block, "ln_1_kv"):
        return False
    if not all(isinstance(getattr(block, name, nn.Identity()), nn.Identity) for name in ("ls_1", "ls_2")):
        return False
    attention, mlp = block.attn, block.mlp
    return (
        _is_plain_norm(block.ln_1)
        and _is_plain_norm(block.ln_2)
        and type(attention) is nn.MultiheadAttention
        and attention.in_proj_weight is not None  # one width for queries, keys and values
        and attention.in_proj_bias is not None
        and attention.bias_k is None
        and not attention.add_zero_attn
        and [name for name, _ in mlp.named_children()] == ["c_fc", "gelu", "c_proj"]
        and type(mlp.c_fc) is type(mlp.c_proj) is nn.Linear
        and (type(mlp.gelu) is nn.GELU or _name(mlp.gelu) in _QUICK_GELUS)
    )


def _is_plain_norm(norm: Any) -> bool:
    return _name(norm) in _NORMS and norm.weight is not None and norm.bias is not None
