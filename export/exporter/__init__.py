"""From a torch network to an ONNX graph: the quick graph of a candidate and the final export.

`graph_builder` writes quick graphs, `onnx_export` drives torch's exporter, `image_model` puts the preprocessing inside.
"""
