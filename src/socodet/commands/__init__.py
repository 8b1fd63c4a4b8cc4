"""A file a command: a function that parses, calls and prints. No logic lives here."""
