"""The table of reference points: name → factory (input shape (C, H, W), number of classes) → untrained network."""

from pipeline.registry import Entry

REFERENCES = {
    "mobilenet_v3_small": Entry(
        "pipeline.references.torchvision_nets:mobilenet_v3_small",
        "MobileNetV3-Small (Howard et al. 2019), torchvision's",
    ),
    "shufflenet_v2_x0_5": Entry(
        "pipeline.references.torchvision_nets:shufflenet_v2_x0_5",
        "ShuffleNetV2 at half width (Ma et al. 2018), torchvision's",
    ),
    "squeezenet1_1": Entry(
        "pipeline.references.torchvision_nets:squeezenet1_1", "SqueezeNet 1.1 (Iandola et al. 2016), torchvision's"
    ),
    "resnet18": Entry("pipeline.references.torchvision_nets:resnet18", "ResNet-18 (He et al. 2016), torchvision's"),
    "resnet8": Entry(
        "pipeline.references.resnet8:resnet8", "ResNet-8 in the style of MLPerf Tiny (Banbury et al. 2021)"
    ),
}
