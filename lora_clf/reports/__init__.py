"""What people get to see of a comparison: tables, plots and the report, all from the same rows."""
