"""Exports fine-tuned detectors to other frameworks, one module per framework, with a card beside each export."""
