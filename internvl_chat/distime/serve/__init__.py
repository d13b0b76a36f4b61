"""An HTTP server for a checkpoint: OpenAI's chat routes, and one that answers in seconds.

`app` has the routes, `requests` what they take, `videos` which videos may be read,
`served_request` the way from a request to the engine and back.
"""
