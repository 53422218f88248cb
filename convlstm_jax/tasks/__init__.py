"""What is predicted from what, and what training minimises."""
