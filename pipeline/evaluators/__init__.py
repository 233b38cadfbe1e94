"""How a candidate's accuracy is known: a plain table name → NNI `Evaluator` subclass."""
