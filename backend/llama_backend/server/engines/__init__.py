"""The engine processes of the loaded models: started, connected with their requests, watched, and restarted."""
