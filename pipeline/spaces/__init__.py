"""Search spaces: a plain table name → `SearchSpace` subclass."""
