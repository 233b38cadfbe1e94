"""Activations, each as the torch module that trains and as the ONNX nodes that are deployed; start at `table`."""

from export.activations.table import ACTIVATIONS, Activation, create, names, register, resolve

__all__ = ["ACTIVATIONS", "Activation", "create", "names", "register", "resolve"]
