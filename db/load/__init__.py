"""`python -m db load`: gets or creates a row for each row of a file."""
