"""Messages of the server: read, put in order, turned into tokens; and what a step sends back."""
