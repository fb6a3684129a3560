"""Scripts: each parses its flags and calls one function of the library."""
