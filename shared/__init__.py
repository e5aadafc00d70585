"""What pusher and notifyd must agree on; imports neither of them and no event loop."""
