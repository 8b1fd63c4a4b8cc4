"""A fine-tuned detector as files for other frameworks, one module per framework, each with a card."""
