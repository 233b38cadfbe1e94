"""Search strategies: a plain table name → factory of an NNI `Strategy`."""
