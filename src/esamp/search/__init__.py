"""Methods that answer one request with many calls to an engine, one file each, registered as all other methods are."""
