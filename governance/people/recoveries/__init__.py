"""Recover an account: two parties together replace its password and second factors."""
