"""A :class:`vlmrm_wrap.encoders.fast_vit.FastViT` run by OpenVINO (an extra), on a CPU in float32.

The same sums in the same float32, in another order. What makes it faster than torch there: weights are
packed once for the CPU's matrix kernels, where torch packs them in every call, and biases, activations and
residuals are added while a product's tile is still in the cache.

The graph is built here, operation by operation, and not traced: nothing is exported, and the batch size
stays open. Its constants are the tower's own memory.
"""

from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from vlmrm_wrap.encoders.fast_vit import FastViT

__all__ = ["OpenVINOTower"]


class OpenVINOTower(nn.Module):
    """Images, float32 ``(n, 3, S, S)`` on the CPU -> features ``(n, D)``, as ``tower`` gives them.

    Runs on as many threads as torch had at construction (``torch.get_num_threads()``). Keeps ``tower``,
    whose weights it reads. ValueError for a tower that is no :class:`FastViT`; ``name`` is whose it is.
    """

    def __init__(self, tower: nn.Module, name: str) -> None:
        super().__init__()
        if not isinstance(tower, FastViT):
            raise ValueError(
                f"backend 'openvino' runs plain CLIP ViTs, and the image tower of {name!r} is another "
                f"({type(tower).__name__}); backend='torch' runs it"
            )
        self._tower = tower
        settings = {
            "INFERENCE_PRECISION_HINT": "f32",  # it would take bfloat16 where the CPU has it
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        }
        self._request = _core().compile_model(_graph(tower), "CPU", settings).create_infer_request()

    def forward(self, images: Tensor) -> Tensor:
        patches = self._tower.patches(images).numpy()
        (features,) = self._request.infer([patches], share_inputs=True).values()
        return torch.from_numpy(features)


@cache
def _core() -> Any:
    import openvino

    return openvino.Core()


def _graph(tower: FastViT) -> Any:
    """``FastViT.encode`` as OpenVINO's operations."""
    import openvino
    import openvino.opset13 as ops

    width, patches = tower.width, len(tower.positions)
    images = ops.parameter([-1, patches, tower.embed.shape[1]], np.float32, name="patches")
    tokens = ops.add(_linear(images, tower.embed), _constant(tower.positions))
    tokens = _norm(tokens, tower.pre_eps)
    tokens = ops.add(ops.multiply(tokens, _constant(tower.pre)), _constant(tower.pre_shift))
    n = ops.gather(ops.shape_of(images), ops.constant([0]), ops.constant(0))
    start = ops.broadcast(_constant(tower.start), ops.concat([n, ops.constant([1, width])], axis=0))
    hidden = ops.concat([start, tokens], axis=1)
    *blocks, last = tower.blocks
    for block in blocks:
        hidden = _mlp(block, _attention(block, hidden, hidden))
    first = ops.gather(hidden, ops.constant([0]), ops.constant(1))  # (n, 1, width)
    hidden = _mlp(last, _attention(last, first, hidden))
    features = _linear(_norm(hidden, tower.post_eps), tower.project, tower.project_shift)
    return openvino.Model([ops.squeeze(features, ops.constant([1]))], [images])


def _attention(block: Any, queries: Any, hidden: Any) -> Any:
    """Residuals ``queries`` plus what they read in ``hidden``; both ``(n, T, width)``."""
    import openvino.opset13 as ops

    sources = [_norm(rows, block.eps1) for rows in (queries, hidden, hidden)]
    parts = zip(sources, block.qkv.chunk(3), block.qkv_bias.chunk(3), strict=True)
    shape, order = ops.constant([0, 0, block.heads, -1]), ops.constant([0, 2, 1, 3])
    q, k, v = (
        ops.transpose(ops.reshape(_linear(source, weight, bias), shape, special_zero=True), order)
        for source, weight, bias in parts
    )
    mixed = ops.transpose(ops.scaled_dot_product_attention(q, k, v), order)
    joined = ops.reshape(mixed, ops.constant([0, 0, -1]), special_zero=True)
    return ops.add(queries, _linear(joined, block.out, block.out_bias))


def _mlp(block: Any, hidden: Any) -> Any:
    import openvino.opset13 as ops

    wide = _linear(_norm(hidden, block.eps2), block.wide, block.wide_bias)
    wide = ops.swish(wide) if block.quick else ops.gelu(wide, "tanh" if block.approximate == "tanh" else "erf")
    return ops.add(hidden, _linear(wide, block.narrow, block.narrow_bias))


def _linear(rows: Any, weight: Tensor, bias: Tensor | None = None) -> Any:
    import openvino.opset13 as ops

    product = ops.matmul(rows, _constant(weight), transpose_a=False, transpose_b=True)
    return product if bias is None else ops.add(product, _constant(bias))


def _norm(rows: Any, eps: float) -> Any:
    import openvino.opset13 as ops

    return ops.mvn(rows, ops.constant([-1]), normalize_variance=True, eps=eps, eps_mode="inside_sqrt")


def _constant(tensor: Tensor) -> Any:
    """A view of the tensor's memory."""
    import openvino.opset13 as ops

    return ops.constant(tensor.detach().contiguous().numpy(), shared_memory=True)
