"""SCIM 2.0 (RFC 7643, RFC 7644): provisioning of people and groups by an identity provider."""
