"""HTTP routes for short requests, under Starlette."""
