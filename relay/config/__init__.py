"""What the user's ssh_config says of a name; ssh itself reads the files (`ssh -G`)."""
