"""The box that questions are typed into."""
