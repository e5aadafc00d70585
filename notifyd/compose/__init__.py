"""What is said to people: mails and short texts, from values alone. No sockets, no clocks."""
