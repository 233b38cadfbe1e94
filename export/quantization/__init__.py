"""INT8: which parts of a graph are quantised, their ranges, and the graph written; start at `quantize`.

`qdq_plan` decides, `ranges` reads statistics of real inputs, `qdq` writes, `mixed_precision` groups float nodes.
"""
