"""What is new to a person since they last looked."""
