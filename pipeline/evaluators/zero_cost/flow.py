"""Scores from gradients of an untrained network: `synflow`, `grad_norm`, `jacob_cov`.

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
    """The score log Σ |θ · ∂R/∂θ| over weights θ, where R is the sum of the outputs for an image of ones.

    Weights are those of convolutions and linear layers.

    All parameters are taken by magnitude and in double precision; R then is the sum over all paths of the products of
    their weights. It grows with the depth beyond the range of a float, hence the logarithm. Batch norms are removed,
    since they would undo what the layers before them do. So are activations: on positive inputs relu and the like
    change nothing, and others would be far off their usual inputs. Sigmoids stay, since they are the gates of
    squeeze-and-excitation, which are open then.

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
    """The sum of the Euclidean norms of the cross entropy's gradients by the weights of each layer.

    Layers are convolutions and linear ones.

    *Abdelfattah, Mehrotra, Dudziak & Lane, Zero-cost proxies for lightweight NAS, ICLR 2021.*

    Args:
        network: is changed; its batch norms use the batch's own statistics.
        images: (N, C, H, W).
        labels: (N,).
    """
    loss = F.cross_entropy(network.train()(images), labels)
    return sum(float(gradient.double().norm()) for _, gradient in _gradients(network, loss))


def jacob_cov(network: nn.Module, images: Tensor, labels: Tensor) -> float:
    """The score −Σ log(λ + k) + 1/(λ + k) over the eigenvalues λ of the input gradients' correlation matrix.

    A network that treats every image differently has uncorrelated gradients: all λ are 1, and the score has its
    maximum, −N.

    *Mellor, Turner, Storkey & Crowley, Neural architecture search without training, first version, 2020
    (arXiv:2006.04647v1).*

    Args:
        network: is changed; its batch norms use the batch's own statistics.
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
    """Trained and used weights of convolutions and linear layers, each with the value's gradient."""
    weights = [m.weight for m in network.modules() if isinstance(m, (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear))]
    weights = [weight for weight in dict.fromkeys(weights) if weight.requires_grad]
    if not weights or not value.requires_grad:
        return []
    gradients = torch.autograd.grad(value, weights, allow_unused=True)
    return [(weight, gradient) for weight, gradient in zip(weights, gradients, strict=True) if gradient is not None]
