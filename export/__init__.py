"""Is this ONNX file the network that was trained, in its cheapest exact form?"""
