"""The settings that the user's ssh_config gives a name; ssh itself reads the files (`ssh -G`)."""
