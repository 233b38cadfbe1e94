"""The costs of a graph that need no clock: shapes, products, parameters, peak memory; see `static_costs`."""
