"""The document kit: sections, tables and plots, one style sheet, and pages that need no network."""
