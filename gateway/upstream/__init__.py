"""The connection to the API that is protected."""
