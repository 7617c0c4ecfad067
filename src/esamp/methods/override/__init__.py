"""OverRIDE: decode each sample against a low-rank head that learned from the samples before it."""
