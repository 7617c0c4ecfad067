"""The HTTP server of ``esamp serve``: its command line, and the middleware around its requests and responses."""
