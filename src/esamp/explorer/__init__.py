"""Exploratory Sampling itself: tensors in, tensors out. Knows no engine, tokenizer, file or request."""
