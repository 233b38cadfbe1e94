"""What does this model cost on this device?

Import the part that is needed: `device`, `environment`, `graph_cost`, `memory`, `runner`, `timing`,
`energy`, `profile`, and `errors` for everything that they raise. This file imports nothing, so that asking
for one of them does not load ONNX Runtime.
"""
