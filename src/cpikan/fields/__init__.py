"""Fields u(x): functions with exact first and second derivatives in one pass, their scaling, windows and files."""
