"""From a finished workdir to tables, figures and explanations."""
