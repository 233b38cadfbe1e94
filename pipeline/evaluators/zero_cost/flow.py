"""Scores by gradients of an untrained network: `synflow`, `grad_norm`, `jacob_cov`.

Each takes a network that it may change: `pipeline.evaluators.zero_cost.scores.score_of` hands out copies.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from export.activations.modules import sites_of

_GATES = (nn.Sigmoid, nn.Hardsigmoid)
_JITTER = 1e-5  # the paper's


def synflow(network: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Log Σ |θ · ∂R/∂θ| over the weights of convolutions and linear layers, R the sum of outputs for an image of ones.

    All parameters are taken by magnitude and in double precision; R then is the sum over all paths of the products of
    their weights, which grows with the depth beyond what a float holds, so it is told as a logarithm. Batch norms are
    taken out, for they would undo what the layers before them do. So are activations: where everything is positive,
    relu and its kin change nothing, and others would tell how far off their usual inputs they are. Sigmoids stay, for
    they are the gates of squeeze-and-excitation, which so stand open.

    *Tanaka, Kunin, Yamins & Ganguli, Pruning neural networks without any data by iteratively conserving synaptic flow,
    NeurIPS 2020; as a score of networks: Abdelfattah, Mehrotra, Dudziak & Lane, Zero-cost proxies for lightweight NAS,
    ICLR 2021.*

    Args:
        network: is changed.
        images: (N, C, H, W), of which the shape of one is used.
        labels: unused.

    Returns:
        −∞ where no path leads through a layer with weights, ∞ beyond 1e308.
    """
    network = network.double().eval()
    linear = set(sites_of(network).values())
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, _BatchNorm) or (child in linear and not isinstance(child, _GATES)):
                setattr(parent, name, nn.Identity())
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.abs_()
    output = network(torch.ones_like(images[:1], dtype=torch.float64)).sum()
    total = sum(float((weight.detach() * gradient).sum()) for weight, gradient in _gradients(network, output))
    return math.log(total) if total > 0 else -math.inf if total == 0 else total


def grad_norm(network: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Σ over convolutions and linear layers of the Euclidean norm of the cross entropy's gradient by their weights.

    *Abdelfattah, Mehrotra, Dudziak & Lane, Zero-cost proxies for lightweight NAS, ICLR 2021.*

    Args:
        network: is changed; batch norms take the batch's own statistics.
        images: (N, C, H, W).
        labels: (N,).
    """
    loss = F.cross_entropy(network.train()(images), labels)
    return sum(float(gradient.double().norm()) for _, gradient in _gradients(network, loss))


def jacob_cov(network: nn.Module, images: Tensor, labels: Tensor) -> float:
    """−Σ log(λ + k) + 1/(λ + k) over the eigenvalues λ of the correlations between the images' input gradients.

    A network that sees every image in a way of its own has gradients that don't correlate: all λ are 1, the score is
    the highest there is, −N.

    *Mellor, Turner, Storkey & Crowley, Neural architecture search without training, first version, 2020
    (arXiv:2006.04647v1).*

    Args:
        network: is changed; batch norms take the batch's own statistics.
        images: (N, C, H, W).
        labels: unused.

    Returns:
        NaN where the output doesn't depend on an image.
    """
    inputs = images.clone().requires_grad_()
    (jacobian,) = torch.autograd.grad(network.train()(inputs).sum(), inputs)
    rows = jacobian.flatten(1).double()
    rows = rows - rows.mean(1, keepdim=True)
    lengths = rows.norm(dim=1, keepdim=True)
    if not bool((lengths > 0).all()) or not bool(torch.isfinite(lengths).all()):
        return math.nan
    rows = rows / lengths
    shifted = torch.linalg.eigvalsh(rows @ rows.T).clamp(min=0) + _JITTER
    return -float((shifted.log() + 1 / shifted).sum())


def _gradients(network: nn.Module, value: Tensor) -> list[tuple[Tensor, Tensor]]:
    """The weights of convolutions and linear layers that are trained and used, and the value's gradients by them."""
    weights = [m.weight for m in network.modules() if isinstance(m, (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear))]
    weights = [weight for weight in dict.fromkeys(weights) if weight.requires_grad]
    if not weights or not value.requires_grad:
        return []
    found = torch.autograd.grad(value, weights, allow_unused=True)
    return [(weight, gradient) for weight, gradient in zip(weights, found, strict=True) if gradient is not None]
