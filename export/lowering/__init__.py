"""Exact rewrites of a graph to forms that ONNX Runtime runs faster; start at `lower`.

`regions` finds parts that are functions of one number, `families` recognises which activation each is, `forms` has the
ways to write it, `activation_sites` puts the chosen one in, and `scale_folding` moves learnt scales into weights.
"""
