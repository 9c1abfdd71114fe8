"""Recovery of an account: two parties together replace how it signs in."""
