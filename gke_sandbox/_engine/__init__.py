"""How one program becomes one result: create, watch, read the log, clean up. Asynchronous, without httpx."""
