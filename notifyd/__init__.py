"""notifyd: takes the slow jobs from the local queue and turns them into mail and SMS."""
