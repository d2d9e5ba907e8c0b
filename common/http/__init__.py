"""HTTP for every service: orders come in, rows and health can be looked at; errors are RFC 9457's."""
