"""Exported files compute what their networks do, also where torch's exporter writes something else."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from export import onnx_file
from export.agreement import probes
from export.errors import ExportError
from export.exporter.fidelity import infidelity
from export.exporter.onnx_export import export_model

IMAGE = torch.randn(2, 4, 9, 9, generator=torch.Generator().manual_seed(0))


class Pooled(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.avg_pool2d(x, 2, divisor_override=7)


class Logarithm(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.log(torch.relu(x) + 1e-9)


class LargeSums(nn.Module):
    """log(eˣ + e⁻ˣ), which the exporter writes as it reads, so that it overflows."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.logaddexp(x, -x)


NETWORKS = {
    "a divisor": nn.AvgPool2d(2, divisor_override=3),
    "a divisor, padding and ceil_mode": nn.AvgPool2d(3, 2, 1, ceil_mode=True, divisor_override=5),
    "a divisor and large strides": nn.AvgPool2d(2, 3, ceil_mode=True, divisor_override=3),
    "a divisor in a function": Pooled(),
    "a log-sigmoid": nn.LogSigmoid(),
    "zeros before a maximum": nn.Sequential(nn.ZeroPad2d(1), nn.MaxPool2d(2)),
    "zeros before an average": nn.Sequential(nn.ZeroPad2d(1), nn.AvgPool2d(2, count_include_pad=False)),
    "a small number": Logarithm(),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_the_file_is_the_network_on_any_values(name):
    network = NETWORKS[name].eval()
    session = onnx_file.open_session(export_model(network, IMAGE).SerializeToString())
    for x in (IMAGE, IMAGE * 0, -IMAGE.abs() * 100, IMAGE * 1e3):
        wanted = network(x).numpy()
        found = onnx_file.run(session, x.numpy())
        assert np.abs(found - wanted).max() <= 1e-5 * max(1.0, float(np.abs(wanted).max()))


def test_a_divisor_in_three_dimensions():
    network, x = nn.AvgPool3d(2, divisor_override=3), torch.randn(2, 2, 4, 4, 4)
    session = onnx_file.open_session(export_model(network, x).SerializeToString())
    assert np.allclose(onnx_file.run(session, x.numpy()), network(x).numpy(), atol=1e-6)


def test_a_network_that_can_t_be_written_right_is_refused_with_the_module():
    network = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.ReLU(), LargeSums(), nn.Conv2d(4, 2, 1))
    with torch.no_grad():
        network[0].weight *= 10
    with pytest.raises(ExportError, match=r"2 \(LargeSums\)"):
        export_model(network, IMAGE)


def test_another_network_s_file_is_not_this_one_s():
    torch.manual_seed(0)
    one, other = (nn.Sequential(nn.Conv2d(4, 3, 1), nn.ReLU()).eval() for _ in range(2))
    model = export_model(one, IMAGE)
    assert infidelity(one, model, probes(IMAGE.numpy())) is None
    assert infidelity(other, model, probes(IMAGE.numpy())) is not None
