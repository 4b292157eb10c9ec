"""Who is calling: where a credential is found and how it is verified."""
