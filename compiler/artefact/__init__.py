"""The artefact: the folder that a compilation gives, and the loader that runs it (numpy only)."""
