"""OpenID Connect: an issuer's keys, what its tokens prove, and logging people in. Nothing here knows of requests."""
