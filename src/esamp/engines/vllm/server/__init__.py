"""The HTTP server of ``esamp serve``: the command line that starts it, and the middleware around its responses."""
