"""The table of search spaces."""

from pipeline.registry import Entry

SPACES = {
    "convnet": Entry(
        "pipeline.spaces.convnet:ConvNetSpace",
        "stages of dense-residual, fused and inverted-residual blocks, 8² to 224², activations included",
    ),
}
