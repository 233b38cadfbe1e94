"""The kernels that ONNX Runtime runs for a file, and the operators of a cost model that stand for them."""
