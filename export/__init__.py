"""Is this ONNX file the network that was trained, in its cheapest exact form?"""

import os

# ONNX Runtime's builds from 1.29 on report their use over the network unless they are told not to; it has to be said
# before onnxruntime is imported, and child processes inherit it.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
