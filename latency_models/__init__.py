"""What does this model cost on this device?

Import the part that is needed: `device`, `environment`, `graph_cost`, `memory`, `runner`, `timing`,
`energy`, `profile`, and `errors` for everything that they raise. This file loads nothing heavy, so that
asking for one of them does not load ONNX Runtime.
"""

import os

# ONNX Runtime's builds from 1.29 on report their use over the network unless they are told not to; it has to be said
# before onnxruntime is imported, and child processes inherit it.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
