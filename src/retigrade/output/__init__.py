"""A grading becomes a table, CSV, JSON lines, a thermal picture and a report."""
