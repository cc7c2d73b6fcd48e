"""Connections: TLS, proxies, rotation of client certificates, bounded bodies."""
