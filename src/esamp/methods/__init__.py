"""Decoding methods that act inside a decode step, one file each, found by entry point (`esamp.methods`)."""
