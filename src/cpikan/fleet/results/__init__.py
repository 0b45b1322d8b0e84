"""Results of wafers as rows of a database."""
