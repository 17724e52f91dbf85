"""The web page, the REST API and the patient record."""
