"""The table of search spaces."""

from pipeline.registry import Entry

SPACES = {
    "convnet": Entry(
        "pipeline.spaces.convnet:ConvNetSpace",
        "stages of dense-residual, fused and inverted-residual blocks, 8² to 224², activations included",
    ),
    "nasbench201": Entry(
        "pipeline.spaces.nasbench201:NasBench201Space",
        "NAS-Bench-201's cells: 5 operators on 6 edges, 15,625 architectures; buildable, activations too",
    ),
    "table": Entry("pipeline.spaces.labels:LabelSpace", "names only: any table keyed by a string of choices"),
}
