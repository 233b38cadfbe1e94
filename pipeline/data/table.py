"""The table of data sets."""

from pipeline.registry import Entry

DATA = {
    "digits": Entry("pipeline.data.digits:load", "1,797 grey 8×8 digits, 10 classes, embedded in scikit-learn"),
    "fashion_mnist": Entry("pipeline.data.torchvision_sets:load", "70,000 grey 28×28 clothes, 10 classes, local root"),
    "cifar10": Entry("pipeline.data.torchvision_sets:load", "60,000 colour 32×32 photographs, 10 classes, local root"),
}
