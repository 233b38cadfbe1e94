"""One model, loaded and fed, that runs again and again in this process: with ONNX Runtime or with torch."""
