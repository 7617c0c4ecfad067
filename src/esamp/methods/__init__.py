"""Decoding methods that run inside an engine, found by entry point (`esamp.methods`)."""
