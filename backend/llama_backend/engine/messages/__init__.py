"""Messages between server and engine: commands are read and prepared by threads of their own, outputs are sent."""
