"""Any OpenAI-compatible endpoint: `esamp serve`, vLLM, a cluster's gateway, a hosted model.

endpoint.Endpoint    base URL and key, from options and environment; errors for the server's refusals
server.Server        the official client, and `ServerInfo`: the model, whether it is vLLM, whether it explores
bodies               turns a `Request` into request bodies
answers              checks responses and turns them into samples
transport            an HTTP client with limits on time and size
keys                 removes the key from texts of the server
background           an event loop in a thread of its own
engine.OpenAIEngine  `esamp.engines.base.Engine` with all of these
"""

from esamp.engines.openai.engine import OpenAIEngine

__all__ = ["OpenAIEngine"]
