"""Parts of the server in app.py."""
