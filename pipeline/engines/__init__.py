"""Where trials run: a plain table name → NNI `ExecutionEngine` subclass."""
