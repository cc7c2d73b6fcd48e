"""Credentials for API requests: static, exec plugins, Google, impersonation."""
