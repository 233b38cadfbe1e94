"""The kernels of a profiled run, and their origins in the file: nodes, modules and activations."""
